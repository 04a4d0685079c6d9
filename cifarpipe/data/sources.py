"""Select the source of images that `data.source` names."""

from cifarpipe.config.schema import Data
from cifarpipe.data.raw import RawData


def read_source(data: Data, seed: int) -> RawData:
    """Read or generate all images of `data.source`; only its own packages are imported.

    Raises:
        UserError: The source can't be read.
    """
    match data.source:
        case "cifar10":
            from cifarpipe.data.cifar10 import read_cifar10

            return read_cifar10()
        case "folder":
            from cifarpipe.data.folder import read_folder

            assert data.folder is not None  # checked by the schema
            return read_folder(data.folder, data.image_size)
        case "synthetic":
            from cifarpipe.data.synthetic import make_synthetic

            assert data.train_size is not None  # likewise
            assert data.test_size is not None
            return make_synthetic(data.train_size + data.val_size, data.test_size, seed)
