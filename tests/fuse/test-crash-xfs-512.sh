#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# xfs on 512-byte sectors: a real tree, kill -9 under load, fsck, every synced file equal.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

# shellcheck source=tests/fuse/crash_fs.sh
. "${srcdir:-.}/tests/fuse/crash_fs.sh"
crash_fs xfs 512
