"""Downloads data sets through torchvision. A failed download leaves nothing; several processes may download at once."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from microstep.errors import DataError
from microstep.utils.files import storage_errors


def download_dataset(name: str, root: Path, folder: str, content_text: str) -> None:
    """Download, check and unpack one of torchvision's data sets, then move it to `root`/`folder`.

    The DataError of a failed download asks the user to put `content_text` there.
    """
    import torchvision  # takes two seconds

    with storage_errors(root), create_directory(root), TemporaryDirectory(dir=root, prefix=".download-") as temporary:
        try:
            getattr(torchvision.datasets, name)(temporary, download=True)
        except Exception as error:  # torchvision raises many kinds: URLError, RuntimeError, ConnectionError, …
            reason = f"it could not be fetched ({' '.join(str(error).split())[:120]})"
            remedy = f"put {content_text} into {root / folder} by hand"
            raise DataError("dataset.download=true", reason, remedy) from None
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        source, target = Path(temporary) / folder, root / folder
        try:
            source.rename(target)
        except OSError:  # another process may have put the same files there
            if not all((target / file.name).exists() for file in source.iterdir()):
                raise


@contextmanager
def create_directory(root: Path) -> Iterator[None]:
    """Create a directory if it is missing, and remove it again if it is still empty at the end of the block."""
    is_new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                root.rmdir()
