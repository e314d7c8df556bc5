"""The part of a data set's YAML file that says where files can be downloaded."""

from urllib.parse import urlsplit

from pydantic import Field, model_validator

from avsnn.pydantic_base import StrictModel


class Source(StrictModel):
    """A place from which files can be downloaded.

    A place is a folder on the web, a Git LFS server, or the address of a single file.
    """

    prefix: str = Field(
        description="The source holds the files whose path starts with this text; empty for all "
        "files"
    )
    url: str | None = Field(
        default=None,
        pattern=r"^https?://.+/$",
        description="Start of the address of every file; replaces the prefix of the path",
    )
    lfs: str | None = Field(
        default=None,
        pattern=r"^https?://.+/objects/batch$",
        description="Batch endpoint of a Git LFS server, which knows files by SHA-256 and size",
    )
    file: str | None = Field(
        default=None,
        pattern=r"^https?://.+[^/]$",
        description="Address of a single file; the prefix is the whole path of the file",
    )
    insecure: bool = Field(
        default=False, description="Whether plain http, without encryption, is allowed"
    )

    @model_validator(mode="after")
    def _require_one_secure_address(self) -> "Source":
        given = [address for address in (self.url, self.lfs, self.file) if address is not None]
        if len(given) != 1:
            raise ValueError("a source has url, lfs or file, and only one of the three")
        if given[0].startswith("http://") and not self.insecure:
            raise ValueError("a source over plain http must say insecure: true")
        return self

    @property
    def name(self) -> str:
        """The name of the source in messages: the host only.

        The whole address may hold a secret.
        """
        host = urlsplit(self.url or self.lfs or self.file or "").hostname
        return f"{host} (LFS)" if self.lfs else str(host)
