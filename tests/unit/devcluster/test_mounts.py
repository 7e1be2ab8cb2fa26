from pathlib import Path

from devcluster.mounts import parse_mount_points

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:33 / /tmp/a\\040b rw - tmpfs tmpfs rw
41 40 0:34 / /tmp/a\\040b/tab\\011 rw - overlay overlay rw
"""


def test_mount_points_with_blanks_are_read() -> None:
    assert parse_mount_points(MOUNTINFO) == [Path("/"), Path("/tmp/a b"), Path("/tmp/a b/tab\t")]
