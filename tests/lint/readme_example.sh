#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# readme_example.sh - the README's program does what it says.

dir=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-readme.XXXXXX") || exit 99
trap 'rm -rf "$dir"' EXIT
program=$PWD/tests/lint/readme_example
cd "$dir" && "$program" && [ -s my.disk ] && [ -s my.trust ]
