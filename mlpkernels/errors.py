"""The errors a user can meet: each names what came, what was wanted and the next thing to try."""


class MlpkError(Exception):
    """Base of every named error of this library; its text is one line for people."""


class DataError(MlpkError):
    """A data set, or a file of one, is damaged, missing parts or not what it says it is."""


class UnknownDataError(DataError):
    """Neither a data set's name nor a file or folder that is there."""


class ModelFileError(MlpkError):
    """A model or checkpoint file is truncated, corrupted or belongs to something else."""


class DivergenceError(MlpkError):
    """The training loss stopped being finite.

    `epoch` counts from 1, `step` from 1 within the epoch; the update of that step was not applied.
    """

    def __init__(self, message: str, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        return type(self), (str(self), self.epoch, self.step)


class ResumeError(MlpkError):
    """A run was asked to go on with settings that contradict those it was started with."""


class UnavailableError(MlpkError):
    """Something needed is not there: a package, the network, a file to be downloaded."""
