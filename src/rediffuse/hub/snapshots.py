"""Downloads from the Hugging Face Hub: a revision is resolved once, with a timeout; offline, the
cache is used.
"""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import (
    HfApi,
    cached_assets_path,
    errors,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rediffuse.errors import ConfigError

SECONDS = 5
"""The timeout for resolving a revision, in seconds."""
NO_CONNECTION = (errors.HTTPError, ConnectionError)  # type: ignore[attr-defined]
"""The first is the error class of the HTTP library that huggingface_hub uses."""


def snapshot(key: str, place: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Downloads files of a model repository.

    Args:
        key: The configuration option that names the repository, for error messages.
        place: The repository, as in "owner/name".
        revision: A commit, tag or branch; None: the default branch.
        patterns: Which files to download.

    Returns:
        The local folder, whose name is the commit.

    Raises:
        ConfigError: The repository or revision does not exist, access is refused, or it is neither
            reachable nor cached.
    """
    try:
        commit = HfApi().model_info(place, revision=revision, timeout=SECONDS).sha
        return Path(snapshot_download(place, revision=commit, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise ConfigError(
            f"{key}: {place} is gated: accept its licence at https://huggingface.co/{place},"
            " create a token at https://huggingface.co/settings/tokens, and run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        option = f"{key.partition('.')[0]}.revision"
        raise ConfigError(
            f"{option}: {place} has no revision {revision!r}; give a commit hash, tag or branch."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ConfigError(
            f"{key}: no folder and no model on the Hub is called {place!r}. Check the spelling;"
            " if it is private, run: hf auth login"
        ) from error
    except (*NO_CONNECTION, LocalEntryNotFoundError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403):
            raise ConfigError(
                f"{key}: the Hub denies access to {place} ({status}); if your token has expired,"
                " run: hf auth login"
            ) from error
        try:
            return Path(
                snapshot_download(
                    place, revision=revision, allow_patterns=list(patterns), local_files_only=True
                )
            )
        except LocalEntryNotFoundError:
            said = (
                f"the Hub answers {status} for {place}"
                if status
                else f"cannot reach the Hub for {place}"
            )
            raise ConfigError(
                f"{key}: {said}, and it is not in the cache. Connect and try again, or give a"
                " folder or a .safetensors file that is on this machine."
            ) from error


def refuse_what_cannot_be_had(key: str, place: str, revision: str | None) -> None:
    """Asks the Hub for a pipeline's smallest file, unless the place is a path. The libraries that
    read the others take seconds to import, so this comes before them.

    Args:
        key: The configuration option that names the repository.
        place: The repository, or a path.
        revision: As in `snapshot`.

    Raises:
        ConfigError: As `snapshot` does.
    """
    is_path = place.startswith((".", "/", "~")) or place.endswith(".safetensors")
    if not is_path and not Path(place).exists():
        snapshot(key, place, revision, ["model_index.json"])


def cached(place: str, revision: str | None) -> Path | None:
    """Returns the folder of a pipeline in the cache, of which files may be missing; None if it is
    not there. Nothing is downloaded.
    """
    try:
        found = try_to_load_from_cache(place, "model_index.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def made_of(snapshot: Path) -> Path:
    """Returns the cache folder for files derived from a snapshot, named by its repository and
    commit.
    """
    return cached_assets_path("rediffuse", snapshot.parents[1].name, snapshot.name)
