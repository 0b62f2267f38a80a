"""Reads checkpoint files, whoever wrote them: nothing in them is run, and what is damaged or hostile is refused."""

import io
import logging
import os
import pickletools
import re
import stat
import struct
import warnings
import zipfile
from collections import Counter
from typing import Any, BinaryIO, NamedTuple

import safetensors.torch
import torch

from ..utils.errors import UserError
from .exported import is_exported
from .facts import check_fact, describe, one_line, shorten

logger = logging.getLogger(__name__)

# An hourglass with its Adam state takes 0.3 MB and 82,000 opcodes of pickle; each opcode can take 64 bytes of memory.
MAX_PICKLE_BYTES = 4 * 2**20
MAX_OPCODES = 250_000
# A file of PyTorch before 1.6 holds this many pickles (the third is the checkpoint), then the bytes of the tensors.
LEGACY_PICKLES = 5
# The classes and functions that weights and plain data need. `bytearray` is not among them: it takes any size.
HARMLESS_GLOBALS = re.compile(
    r'collections (OrderedDict|Counter)|(builtins|__builtin__) (set|complex)|_codecs encode'
    r'|torch(\.storage)? \w+Storage|torch (Size|device|[a-z]+\d\w*|float|double|half|int|long|short|bool)'
    r'|torch\.nn\.parameter Parameter|torch\._tensor _rebuild_from_type_v2|torch Tensor'
    r'|torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)'
)
OTHER_TENSORS = re.compile(r'torch\._utils _rebuild_\w+|torch\.serialization _get_layout|torch per_\w+')
# Raised by zipfile at archives that are cut short, damaged, encrypted or made up.
BAD_ARCHIVE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, KeyError, EOFError, struct.error)
CUT_SHORT = 'it is not a checkpoint, or was cut short; fetch or copy it again'
CHUNK = 2**20  # bytes that are read at once
WRAPPERS = ('state_dict', 'ema', 'model')  # keys under which programs keep weights, the published one first
# DistributedDataParallel, torch.compile and Lightning put these before the names of parameters.
PREFIXES = re.compile(r'^((module|model)\.|_orig_mod\.)+|(?<=\.)_orig_mod\.')


class Refusal(UserError):
    """A file that is no checkpoint, or a damaged one."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"'{path}' cannot be loaded: {reason}")


class Identity(NamedTuple):
    """A file as long as it is not written to."""

    device: int
    inode: int
    size: int
    modified: int


# Files of PyTorch before 1.6 can only be read whole. The content of the one whose facts were read last waits here to
# be loaded, so that it is read once.
waiting: dict[Identity, dict[str, Any]] = {}


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint, or a bare state dict, onto the CPU. Nothing in the file is executed.

    It may be of PyTorch (its checksums are verified) or a safetensors file. Weights under the keys `ema` or `model`
    are found, and names lose the prefixes of DataParallel, torch.compile and Lightning.

    Returns:
        A dict with at least `epoch` (0 in a bare state dict) and `state_dict`, `{name: tensor}`; and whatever else
        the file holds. Tensors stay on the disk until they are read, where the format allows it.

    Raises:
        UserError: it is missing, no checkpoint, cut short, damaged, or holds code or other tensors than dense ones.
    """
    return read_checkpoint(path, verify=True)


def read_checkpoint(path: str | os.PathLike, verify: bool) -> dict[str, Any]:
    """As `load_checkpoint`; without `verify`, the bytes of the tensors are neither read nor verified where the format
    allows it (not in files of PyTorch before 1.6, whose content waits to be loaded)."""
    identity = identify(path)
    if is_exported(path):
        raise UserError(f"'{path}' is an exported file, which test.py and demo.py run: give the checkpoint itself")
    if identity in waiting:
        return waiting.pop(identity) if verify else waiting[identity]
    with open_file(path) as file:
        head = file.read(9)
    waiting.clear()
    if head.startswith(b'PK'):
        verify_archive(path, identity.size, verify)
        return unwrap(path, load_pickled(path, mmap=True))
    if os.fspath(path).endswith('.safetensors') or head[8:] == b'{':  # a length of eight bytes, then JSON
        if verify:
            logger.info("'%s' is read as safetensors, which have no checksums", path)
        return unwrap(path, load_safetensors(path))
    with open_file(path) as file:
        for _ in range(LEGACY_PICKLES):
            check_pickle(path, file)
    checkpoint = unwrap(path, load_pickled(path, mmap=False))
    if not verify:
        waiting[identity] = checkpoint
    return checkpoint


def identify(path: str | os.PathLike) -> Identity:
    """Look at a file without opening it, since opening a pipe waits for its writer.

    Raises:
        UserError: there is no such file, or it is a folder, pipe or device.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"no such checkpoint: '{path}'") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"'{path}' cannot be read as a checkpoint: {getattr(error, 'strerror', error)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"'{path}' cannot be read as a checkpoint: Is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"'{path}' cannot be read as a checkpoint: expected a file, found a pipe or device")
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Open a file for reading.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        return open(path, 'rb')
    except OSError as error:
        raise UserError(f"'{path}' cannot be read as a checkpoint: {error.strerror}") from None


def verify_archive(path: str | os.PathLike, size: int, verify: bool) -> None:
    """Check a zip archive of `size` bytes before torch reads it, which checks nothing.

    Its members must be stored as torch stores them (uncompressed, each once), its pickle harmless, and the checksums
    of all members right, or that of the pickle alone without `verify`.

    Raises:
        UserError: one of these is not so; names the member.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_directory(path, size, members)
            has_checksums = any(member.CRC for member in members)  # torch.save can be asked to leave them out
            for member in members:
                if not has_checksums:
                    member.CRC = None  # type: ignore[assignment]  # zipfile then checks none
                if member.filename.endswith('/data.pkl'):
                    check_pickle(path, io.BytesIO(read_member(path, archive, member)))
                elif verify and has_checksums:
                    read_member(path, archive, member, keep=False)
    except BAD_ARCHIVE:
        raise Refusal(path, CUT_SHORT) from None


def check_directory(path: str | os.PathLike, size: int, members: list[zipfile.ZipInfo]) -> None:
    """Check what an archive's directory says of its members, before any of them is read.

    Raises:
        UserError: a member is compressed or there twice, or they take more than the file's `size`.
    """
    names = Counter(member.filename for member in members)
    for member in members:
        name = describe(member.filename)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise Refusal(path, f'its member {name} is compressed, as PyTorch never writes it; save it with torch.save')
        if names[member.filename] > 1:
            raise Refusal(path, f'its member {name} is there twice; fetch or copy it again')
        if member.filename.endswith('/data.pkl') and member.file_size > MAX_PICKLE_BYTES:
            raise Refusal(path, f'it holds {member.file_size:,} bytes beside its tensors; save weights and facts only')
    if sum(member.file_size for member in members) > size:
        raise Refusal(path, 'its members are larger than the file; fetch or copy it again')


def read_member(path: str | os.PathLike, archive: zipfile.ZipFile, member: zipfile.ZipInfo, keep: bool = True) -> bytes:
    """Read a member to its end, which verifies its checksum; returns its bytes, or none of them without `keep`.

    Raises:
        UserError: its bytes are damaged; names it.
    """
    kept = io.BytesIO()
    try:
        with archive.open(member) as file:
            while chunk := file.read(CHUNK):
                if keep:
                    kept.write(chunk)
    except BAD_ARCHIVE:
        reason = (
            f'its member {describe(member.filename)} is damaged (its checksum does not match); fetch or copy it again'
        )
        raise Refusal(path, reason) from None
    return kept.getvalue()


def check_pickle(path: str | os.PathLike, file: BinaryIO) -> None:
    """Walk through one pickle, building nothing, and leave `file` behind it.

    Raises:
        UserError: it is cut short, too long, or refers to more than weights and plain data need.
    """
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MAX_OPCODES:
                raise Refusal(path, 'it holds too much beside its tensors; save weights and facts only')
            argument = str(argument)
            if opcode.name != 'GLOBAL' or HARMLESS_GLOBALS.fullmatch(argument):
                continue
            name = describe(argument.replace(' ', '.')).strip("'")
            if OTHER_TENSORS.fullmatch(argument):
                raise Refusal(path, f'it holds a sparse, quantized or meta tensor ({name}); save dense weights')
            raise Refusal(path, f'it holds code ({name}), which is not run; save weights and plain data only')
    except (ValueError, struct.error, OverflowError, EOFError):
        raise Refusal(path, CUT_SHORT) from None


def load_pickled(path: str | os.PathLike, mmap: bool) -> Any:
    """Read the content of a PyTorch file; with `mmap`, its tensors stay on the disk until they are read.

    Raises:
        UserError: torch cannot read it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about the pickle protocol of files that are refused anyhow
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except Exception as error:  # nothing of ours runs in here: the bytes are a stranger's, torch may fail in any way
        code = re.search(r'GLOBAL ([\w.]+)', str(error))
        reason = f'it holds code ({code[1]}), which is not run; save weights and plain data only' if code else CUT_SHORT
        raise Refusal(path, reason) from None


def load_safetensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the tensors `{name: tensor [...]}` of a safetensors file.

    Raises:
        UserError: the library cannot read it.
    """
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise Refusal(path, f'it is not a safetensors file, or was cut short ({one_line(error)})') from None


def unwrap(path: str | os.PathLike, content: Any) -> dict[str, Any]:
    """Return a file's content as `load_checkpoint` returns it.

    Raises:
        UserError: there are no weights in it, or ones that are not dense real tensors; its epoch is none.
    """
    key, weights = find_weights(content)
    if weights is None:
        found = f'the keys {shorten(content)}' if isinstance(content, dict) else f'a {type(content).__name__}'
        raise UserError(
            f"'{path}' is not a checkpoint: expected a dict with 'state_dict', {{name: tensor}}, found {found}"
        )
    if key not in ('', 'state_dict'):
        logger.info("'%s': its weights are under the key '%s'", path, key)
    state = published_state(path, weights)
    checkpoint = {} if key == '' else {name: value for name, value in content.items() if name not in WRAPPERS}
    check_fact(path, 'epoch', checkpoint.setdefault('epoch', 0))
    return {**checkpoint, 'state_dict': state}


def published_state(path: str | os.PathLike, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give weights their published names.

    Args:
        path: the file that they are from.
        weights: `{name: tensor [...]}`.

    Returns:
        The same tensors, without the prefixes before their names.

    Raises:
        UserError: one is not a dense real tensor, or has no name that a parameter can have.
    """
    state: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        published = PREFIXES.sub('', name)
        if not published.isprintable() or len(published) > 500:
            raise Refusal(path, f'{describe(name)} is no name of a parameter')
        if published in state:
            raise Refusal(path, f"it holds '{published}' twice, under different prefixes")
        if not is_dense(value) or value.is_complex():
            raise Refusal(path, f"'{published}' is not a dense tensor of real numbers; save dense weights")
        state[published] = value
    return state


def find_weights(content: Any) -> tuple[str, dict[str, torch.Tensor] | None]:
    """Find the weights `{name: tensor [...]}` in a file's content.

    Returns:
        The key under which they lie, '' where they are all that there is, and the weights, None where there are none.
    """
    if is_state_dict(content):
        return '', content
    if isinstance(content, dict):
        for key in WRAPPERS:
            value = content.get(key)
            if is_state_dict(value):
                return key, value
            if isinstance(value, dict):
                for inner in (*WRAPPERS, 'module'):
                    if is_state_dict(value.get(inner)):
                        return f'{key}.{inner}', value[inner]
    return '', None


def is_state_dict(value: Any) -> bool:
    """Return whether it is a dict of named tensors, and not empty."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(item, torch.Tensor) for name, item in value.items())
    )


def is_dense(value: Any) -> bool:
    """Return whether it is a tensor whose values all lie in memory, neither sparse nor quantized."""
    return (
        isinstance(value, torch.Tensor) and value.layout == torch.strided and not (value.is_quantized or value.is_meta)
    )
