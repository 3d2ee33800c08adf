"""What the tests of the data sets share: IDX files, and a server that stands in for the mirrors."""

import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def idx_bytes(values):
    """The plain IDX file of an array of bytes."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@contextmanager
def mirrors(files):
    """A server of these files (name -> bytes) with `address` and a list of what was `asked`; see Handler."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.asked, http.files, http.stuck = [], files, threading.Event()
    http.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield http
    finally:
        http.stuck.set()
        http.shutdown()
        thread.join()
        http.server_close()


class Handler(BaseHTTPRequestHandler):
    """/good/ serves the content, the others fail in their own way."""

    def do_GET(self):
        self.server.asked.append(self.path)
        way, name = self.path[1:].split("/", 1)
        content = self.server.files.get(name)
        if way == "missing" or content is None:
            self.send_error(404)
            return
        if way == "moved":
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            self.end_headers()
            return
        self.send_response(200)
        if way != "unsized":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if way == "wrong":
            content = content[:-1] + b"?"
        elif way == "short":
            content = content[: len(content) // 2]
        elif way == "stuck":
            self.wfile.write(content[:10])
            self.server.stuck.wait(5)
            return
        self.wfile.write(content)

    def log_message(self, *_):
        """Keep the test's output clean."""
