#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# ext4 on 4096-byte sectors: a real tree, kill -9 under load, fsck, every synced file equal.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

# shellcheck source=tests/fuse/crash_fs.sh
. "${srcdir:-.}/tests/fuse/crash_fs.sh"
crash_fs ext4 4096
