# SPDX-License-Identifier: BSD-2-Clause
# bash completion for mrcache(1)

_mrcache_pids() {
	local file
	for file in "/dev/shm/mrcache.$EUID".*; do
		[ ! -e "$file" ] || printf '%s\n' "${file##*.}"
	done
}

_mrcache() {
	local cur prev words cword command i
	_init_completion -s || return

	for ((i = 1; i < cword; i++)); do
		case ${words[i]} in
		-*) ;;
		*) command=${words[i]}; break ;;
		esac
	done

	case ${command:-} in
	run)
		# Behind the program's name its own completion takes over. These
		# words are split at "=", unlike those above.
		for ((i = 2; i < COMP_CWORD; i++)); do
			case ${COMP_WORDS[i]} in
			--) ((i++)); break ;;
			-l | --linger | -m | --monitor | -b | --max-bytes | -c | --stack-caches)
				[[ ${COMP_WORDS[i + 1]} != = ]] || ((i++))
				((i++)) ;;
			--stats | --verify)
				[[ ${COMP_WORDS[i + 1]} != = ]] || ((i += 2)) ;;
			-*) ;;
			*) break ;;
			esac
		done
		if ((i < COMP_CWORD)); then
			_command_offset "$i"
			return
		fi
		case $prev in
		-m | --monitor)
			mapfile -t COMPREPLY < <(compgen -W \
				'auto ummunotify ummunotify-2010 none' -- "$cur")
			return ;;
		-c | --stack-caches)
			mapfile -t COMPREPLY < <(compgen -W 'guard off keep' \
				-- "$cur")
			return ;;
		--stats) _filedir; return ;;
		--verify) _filedir -d; return ;;
		-l | --linger | -b | --max-bytes) return ;;
		esac
		if [[ $cur == -* && $prev != -- ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--remote --linger=
				--stats --stats= --monitor= --max-bytes=
				--stack-caches= --verify --verify= --quiet
				--verbose --help --usage --version' -- "$cur")
			[[ ${COMPREPLY[*]-} != *= ]] || compopt -o nospace
			return
		fi
		_command_offset "$COMP_CWORD"
		;;
	env)
		mapfile -t COMPREPLY < <(compgen -W '--sh --csh --json --elsewhere
			--remote --linger= --stats= --monitor= --max-bytes=
			--stack-caches= --quiet --verbose --help --usage --version' -- "$cur")
		[[ ${COMPREPLY[*]-} != *= ]] || compopt -o nospace
		;;
	doctor)
		if [[ $cur != -* ]]; then
			_command_offset "$COMP_CWORD"
			return
		fi
		mapfile -t COMPREPLY < <(compgen -W '--json --timeout= --remote
			--linger= --monitor= --max-bytes= --stack-caches= --help
			--usage --version' -- "$cur")
		[[ ${COMPREPLY[*]-} != *= ]] || compopt -o nospace
		;;
	stat)
		case $prev in --watch | -w) return ;; esac
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--all --watch
				--watch= --json --help --usage --version' -- "$cur")
			[[ ${COMPREPLY[*]-} != *= ]] || compopt -o nospace
			return
		fi
		mapfile -t COMPREPLY < <(compgen -W "$(_mrcache_pids)" -- "$cur")
		;;
	help)
		mapfile -t COMPREPLY < <(compgen -W 'run env doctor stat' -- "$cur")
		;;
	*)
		mapfile -t COMPREPLY < <(compgen -W 'run env doctor stat help
			--help --usage --version' -- "$cur")
		;;
	esac
}

complete -F _mrcache mrcache
