# bash completion for the programs of MlsDisk                           -*- shell-script -*-
# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
#
# One file for all programs, installed once for each under its name. An option that takes a value ends
# with '='; tests/cli/test-completion.sh compares the lists with each program's --help.

# The options of program $1, in $options.
_mlsdisk_options() {
	case $1 in
	mlsdisk-format)
		options="--size= --backing-size= --key-file= --trusted-store= --force"
		;;
	mlsdisk-fuse)
		options="--key-file= --trusted-store= --accept-rollback --read-only --cache-size= --sync-policy="
		options+=" -f --foreground -o"
		;;
	mlsdisk-fsck)
		options="-n -p -y --data -C --json --salvage= --key-file= --trusted-store="
		;;
	mlsdisk-dump)
		options="--json --key-file= --trusted-store= --data --svg="
		;;
	mlsdisk-key)
		options="--key-file= --new-key-file= --slot= --label= --trusted-store="
		;;
	esac
	options+=" --help --version"
}

_mlsdisk_words() {
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

_mlsdisk_files() {
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

# The value $2 of option $1.
_mlsdisk_value() {
	case $1 in
	--key-file | --new-key-file | --salvage | --svg) _mlsdisk_files "$2" ;;
	--trusted-store)
		_mlsdisk_words "file: tpm2:0x01800001 none" "$2"
		[[ ${COMPREPLY[0]-} != file: ]] || compopt -o nospace 2>/dev/null
		;;
	--sync-policy) _mlsdisk_words "early strict" "$2" ;;
	--slot) _mlsdisk_words "0 1 2 3 4 5 6 7" "$2" ;;
	-o) _mlsdisk_words "allow_other allow_root default_permissions" "$2" ;;
	esac
}

# The operand number $2, from 1, of program $1; $3 is what it begins with.
_mlsdisk_operand() {
	case $1,$2 in
	mlsdisk-key,1) _mlsdisk_words "list add remove change" "$3" ;;
	mlsdisk-dump,2) _mlsdisk_words "superblock journal chunks logs index lba hba stats map" "$3" ;;
	mlsdisk-format,1 | mlsdisk-fuse,[12] | mlsdisk-fsck,1 | mlsdisk-dump,1 | mlsdisk-key,2)
		_mlsdisk_files "$3"
		;;
	esac
}

# How many operands stand before the cursor. '=' and ':' divide words in bash.
_mlsdisk_nr_operands() {
	local i nr=0

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		= | :) ((++i)) ;;
		-o | -C) ((++i)) ;;
		-*) ;;
		*) ((++nr)) ;;
		esac
	done
	echo "$nr"
}

_mlsdisk() {
	local program=${1##*/} cur=${COMP_WORDS[COMP_CWORD]} at=$COMP_CWORD prev options

	COMPREPLY=()
	prev=${COMP_WORDS[at - 1]}
	if [[ $prev == : || $cur == : ]]; then		# --trusted-store = file : PATH
		[[ $cur != : ]] || cur=
		_mlsdisk_files "$cur"
	elif [[ $cur == = ]]; then			# --key-file =
		_mlsdisk_value "$prev" ""
	elif [[ $prev == = ]] && ((at >= 2)); then	# --key-file = FILE
		_mlsdisk_value "${COMP_WORDS[at - 2]}" "$cur"
	elif [[ $prev == -o ]]; then
		_mlsdisk_value -o "$cur"
	elif [[ $prev == -C ]]; then
		:
	elif [[ $cur == -* ]]; then
		_mlsdisk_options "$program"
		_mlsdisk_words "$options" "$cur"
		[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
	else
		_mlsdisk_operand "$program" "$(($(_mlsdisk_nr_operands) + 1))" "$cur"
	fi
}

complete -F _mlsdisk mlsdisk-format mlsdisk-fuse mlsdisk-fsck mlsdisk-dump mlsdisk-key
