"""Read CIFAR-10 with torchvision; the archive's checksum is verified before it is unpacked."""

import tempfile
from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from cifarpipe.config.errors import UserError
from cifarpipe.data.raw import RawData, RawSplit
from cifarpipe.store.paths import RAW_ROOT_VARIABLE, raw_root


def read_cifar10() -> RawData:
    """Read CIFAR-10 from the raw-data folder, and download the archive if it is missing.

    Raises:
        UserError: The archive has a wrong checksum, or is missing and can't be downloaded.
    """
    root = raw_root()
    unpacked = root / CIFAR10.base_folder
    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    known = [*CIFAR10.train_list, *CIFAR10.test_list, meta]
    if not all(check_integrity(unpacked / name, md5) for name, md5 in known):
        _provide_archive(root)
        # CIFAR10 itself would not unpack it again if only `batches.meta` is missing.
        extract_archive(root / CIFAR10.filename, root)
    train = CIFAR10(root, train=True)
    test = CIFAR10(root, train=False)
    return RawData(list(train.classes), _as_split(train), _as_split(test))


def _as_split(dataset: CIFAR10) -> RawSplit:
    return RawSplit(np.asarray(dataset.data), np.asarray(dataset.targets, np.int64))


def _provide_archive(root: Path) -> None:
    """Verify the archive in `root`, or download it; an interrupted download leaves no file."""
    archive = root / CIFAR10.filename
    if archive.exists():
        if not check_integrity(archive, CIFAR10.tgz_md5):
            raise UserError(
                f"{archive} has a wrong checksum: it is incomplete, or not the CIFAR-10 archive "
                f"(MD5 {CIFAR10.tgz_md5}).\n"
                f"Delete it to download it again, or replace it by the correct file."
            )
        return
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
        try:
            download_url(CIFAR10.url, folder, CIFAR10.filename, CIFAR10.tgz_md5)
        except (OSError, HTTPException, RuntimeError) as error:
            raise UserError(
                f"CIFAR-10 can't be downloaded: {error}.\n"
                f"Without a network, copy {CIFAR10.filename} (MD5 {CIFAR10.tgz_md5}) to {archive}; "
                f"set ${RAW_ROOT_VARIABLE} to use another folder than {root}.\n"
                f"To try the pipeline without any data: make demo."
            ) from None
        (Path(folder) / CIFAR10.filename).replace(archive)
