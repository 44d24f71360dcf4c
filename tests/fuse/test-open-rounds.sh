#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# A thousand times open, write, sync, close: open_rounds.c says what must hold.
set -euo pipefail
exec "${MLS_BUILD_DIR:-$PWD}/tests/fuse/open_rounds"
