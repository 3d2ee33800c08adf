/* A CUDA driver without a GPU, as libcuda.so.1: memory of the device is the host's, and a launch runs nothing.

   What the CUDA packages do on the host can so be run as it is: loading, copies, streams, errors. Fresh memory holds
   0xff, NaN in floats. REFUSE=cuLaunchKernel:701 has that function fail with that code, read at every call; MEMORY is
   what the device has, in bytes. A function that is not here succeeds and does nothing. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef uint64_t Address;
typedef uintptr_t Handle;

static Handle handles = 0x7000; /* of contexts, streams, events, modules, kernels: any number will do */
static Handle contexts[64];
static int depth = 0;
static size_t taken = 0;

static Result refused(const char *function) {
    const char *text = getenv("REFUSE");
    size_t length = strlen(function);
    return text && !strncmp(text, function, length) && text[length] == ':' ? atoi(text + length + 1) : 0;
}

static Result made(Handle *handle) { *handle = handles += 16; return 0; }
static size_t memory(void) {
    const char *text = getenv("MEMORY");
    return text ? strtoull(text, 0, 10) : (size_t)1 << 40;
}

/* ---- devices and contexts */

Result cuDriverGetVersion(int *version) { *version = 13000; return 0; }
Result cuDeviceGetCount(int *count) { *count = 1; return 0; }
Result cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? 101 : 0; }
Result cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "a pretended GPU"); return 0; }
Result cuDeviceTotalMem_v2(size_t *size, int device) { *size = memory(); return 0; }
Result cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 7, 16); return 0; }
Result cuDeviceGetUuid(char *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;            /* threads of a block */
    case 5: *value = 0x7fffffff; break;                      /* blocks of a grid */
    case 8: *value = 48 << 10; break;                        /* bytes of shared memory */
    case 10: *value = 32; break;                             /* threads of a warp */
    case 12: case 82: *value = 65536; break;                 /* registers */
    case 16: *value = 132; break;                            /* multiprocessors */
    case 75: *value = 9; break;                              /* compute capability 9.0 */
    case 76: *value = 0; break;
    case 97: *value = 227 << 10; break;
    default: *value = 1;                                     /* 95, cooperative launches, among them */
    }
    return 0;
}
Result cuDevicePrimaryCtxRetain(Handle *context, int device) { *context = 0x1000; return 0; }
Result cuCtxGetCurrent(Handle *context) { *context = depth ? contexts[depth - 1] : 0; return 0; }
Result cuCtxSetCurrent(Handle context) {
    if (!context) depth -= depth > 0;
    else contexts[depth ? depth - 1 : depth++] = context;
    return 0;
}
Result cuCtxPushCurrent_v2(Handle context) { contexts[depth++] = context; return 0; }
Result cuCtxPopCurrent_v2(Handle *context) { if (depth) depth--; if (context) *context = contexts[depth]; return 0; }
Result cuCtxGetDevice(int *device) { *device = 0; return 0; }
Result cuCtxGetDevice_v2(int *device, Handle context) { *device = 0; return 0; }
Result cuCtxSynchronize(void) { return refused("cuCtxSynchronize"); }

/* ---- memory */

Result cuMemAlloc_v2(Address *address, size_t size) {
    if (taken + size > memory()) return 2;
    void *there = aligned_alloc(512, (size + 511) / 512 * 512);
    taken += malloc_usable_size(there);
    memset(there, 0xff, size);
    *address = (Address)there;
    return 0;
}
Result cuMemFree_v2(Address address) {
    taken -= malloc_usable_size((void *)address);
    free((void *)address);
    return 0;
}
Result cuMemGetInfo_v2(size_t *left, size_t *total) {
    *total = memory();
    *left = taken < *total ? *total - taken : 0;
    return 0;
}
static Result copied(void *to, const void *from, size_t size) { memcpy(to, from, size); return 0; }
Result cuMemcpyHtoD_v2(Address to, const void *from, size_t size) { return copied((void *)to, from, size); }
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, Handle stream) {
    return copied((void *)to, from, size);
}
Result cuMemcpyDtoH_v2(void *to, Address from, size_t size) { return copied(to, (void *)from, size); }
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, Handle stream) {
    return copied(to, (void *)from, size);
}
Result cuMemcpyDtoD_v2(Address to, Address from, size_t size) { return copied((void *)to, (void *)from, size); }
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, Handle stream) {
    return copied((void *)to, (void *)from, size);
}
Result cuMemGetAddressRange_v2(Address *start, size_t *size, Address address) {
    *start = address;
    *size = malloc_usable_size((void *)address);
    return 0;
}
Result cuPointerGetAttribute(void *value, int attribute, Address address) {
    switch (attribute) {
    case 2: *(int *)value = 2; break;                        /* memory of a device */
    case 3: *(Address *)value = address; break;
    case 9: *(int *)value = 0; break;                        /* of device 0 */
    default: *(Handle *)value = 0x1000;                      /* of this context */
    }
    return 0;
}
Result cuPointerGetAttributes(unsigned count, const int *attributes, void **values, Address address) {
    for (unsigned i = 0; i < count; i++) cuPointerGetAttribute(values[i], attributes[i], address);
    return 0;
}

/* ---- streams and events */

Result cuStreamCreate(Handle *stream, unsigned flags) { return made(stream); }
Result cuStreamCreateWithPriority(Handle *stream, unsigned flags, int priority) { return made(stream); }
Result cuStreamGetCtx(Handle stream, Handle *context) { *context = 0x1000; return 0; }
Result cuStreamGetCtx_v2(Handle stream, Handle *context, Handle *green) {
    *context = 0x1000;
    if (green) *green = 0;
    return 0;
}
Result cuStreamGetDevice(Handle stream, int *device) { *device = 0; return 0; }
Result cuEventCreate(Handle *event, unsigned flags) { return made(event); }
Result cuEventElapsedTime(float *milliseconds, Handle begin, Handle end) { *milliseconds = 1; return 0; }
Result cuEventElapsedTime_v2(float *milliseconds, Handle begin, Handle end) { *milliseconds = 1; return 0; }

/* ---- kernels */

static Result loaded(Handle *module) {
    Result code = refused("cuLibraryLoadData");
    return code ? code : made(module);
}
Result cuLibraryLoadData(Handle *library, const void *code) { return loaded(library); }
Result cuModuleLoadDataEx(Handle *module, const void *code) { return loaded(module); }
Result cuLibraryGetModule(Handle *module, Handle library) { return made(module); }
Result cuLibraryGetKernel(Handle *kernel, Handle library, const char *name) { return made(kernel); }
Result cuModuleGetFunction(Handle *kernel, Handle module, const char *name) { return made(kernel); }
Result cuKernelGetFunction(Handle *function, Handle kernel) { *function = kernel; return 0; }
Result cuFuncGetAttribute(int *value, int attribute, Handle kernel) { *value = attribute ? 0 : 1024; return 0; }
Result cuKernelGetAttribute(int *value, int attribute, Handle kernel, int device) {
    return cuFuncGetAttribute(value, attribute, kernel);
}
Result cuLibraryGetGlobal(Address *address, size_t *size, Handle library, const char *name) { return 500; }
Result cuModuleGetGlobal_v2(Address *address, size_t *size, Handle module, const char *name) { return 500; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *count, Handle kernel, int threads, size_t shared) {
    *count = 1;
    return 0;
}
Result cuLaunchKernel(void) { return refused("cuLaunchKernel"); }
Result cuLaunchKernelEx(void) { return refused("cuLaunchKernel"); }
Result cuLaunchCooperativeKernel(void) { return refused("cuLaunchCooperativeKernel"); }

/* ---- errors, and how a function is found */

Result cuGetErrorName(int code, const char **name) {
    switch (code) {
    case 2: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case 209: *name = "CUDA_ERROR_NO_BINARY_FOR_GPU"; break;
    case 500: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case 700: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case 701: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return 0;
}
Result cuGetErrorString(int code, const char **text) {
    *text = code == 2 ? "out of memory" : "as it was told to";
    return 0;
}

static Result nothing(void) { return 0; }

Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    static const char *forms[] = {"%s_v2", "%s"};
    Dl_info ours;
    dladdr((void *)nothing, &ours);
    void *self = dlopen(ours.dli_fname, RTLD_NOW | RTLD_NOLOAD), *there = 0;
    for (int i = 0; i < 2 && !there; i++) {
        char form[128];
        snprintf(form, sizeof form, forms[i], name);
        there = dlsym(self, form);
    }
    *function = there ? there : (void *)nothing;
    if (status) *status = 0;
    return 0;
}
Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}
Result cuInit(unsigned flags) { return 0; }
