"""Which file system a path lies on, as Linux reports it; on other systems it is not known."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

#: Several machines may open the same file on these, and none of them sees the others' shared memory.
_NETWORK = {
    "nfs",
    "nfs3",
    "nfs4",
    "cifs",
    "smbfs",
    "smb2",
    "smb3",
    "ncpfs",
    "afs",
    "coda",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "beegfs",
    "pvfs2",
    "orangefs",
    "ocfs2",
    "gfs",
    "gfs2",
    "davfs",
    "sshfs",
    "s3fs",
    "gcsfuse",
    "rclone",
    "ceph-fuse",
    "curlftpfs",
    "goofys",
    "blobfuse",
    "blobfuse2",
    "juicefs",
    "mfs",
    "mount-s3",
    "s3ql",
}
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that `path` lies, or would lie, on; None: it is a local one, or not known."""
    kind = _type_of(path)
    if kind is None:
        return None
    return kind if kind.removeprefix("fuse.").lower() in _NETWORK else None


def _type_of(path: Path) -> str | None:
    try:
        lines = MOUNTS.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = path.resolve()
    depth, file_system = -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        mount = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # of two mounts on one path the later one is visible
        if place.is_relative_to(mount) and len(mount.parts) >= depth:
            depth, file_system = len(mount.parts), after.split(" ")[0]
    return file_system
