"""MATLAB files. scipy's reader builds arrays from the bytes and runs nothing that a file could bring along."""

from pathlib import Path
from typing import Any

from scipy.io import loadmat

from xai.core.errors import UserError


def read_mat(path: Path, variable: str) -> Any:
    """One variable of a MATLAB file (version 4 to 7), without its axes of length one.

    Raises:
        UserError: broken, cut short, of version 7.3 (which is HDF5), or without that variable.
    """
    return read_mat_variables(path, (variable,))[0]


def read_mat_variables(path: Path, variables: tuple[str, ...]) -> list[Any]:
    """Several variables in one pass over the file, in the order asked for; as `read_mat`."""
    try:
        content = loadmat(path, variable_names=list(variables), squeeze_me=True)
    except NotImplementedError:
        raise UserError(f"{path} is a MATLAB 7.3 file; save it with -v7") from None
    except Exception as error:  # the parser meets broken bytes with whatever error comes first
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} cannot be read as a MATLAB file ({why}); unpack the data set again") from None
    absent = [name for name in variables if name not in content]
    if absent:
        raise UserError(f'{path} has no variable "{absent[0]}"; unpack the data set again')
    return [content[name] for name in variables]
