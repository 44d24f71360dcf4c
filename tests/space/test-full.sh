#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# A full disk is tried for MLS_FULL_SECONDS, stays full, and goes on when space is freed.
set -euo pipefail

work=$(mktemp -d "${MLS_E2E_DIR:-/var/tmp}/mlsdisk-full.XXXXXX")
trap 'rm -rf "$work"' EXIT
"${MLS_BUILD_DIR:-$PWD}/tests/space/full" "$work" "${MLS_FULL_SECONDS:-10}"
