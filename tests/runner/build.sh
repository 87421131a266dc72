# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of run
#
# Running what takes long, and building; for run to source.

# Runs a command that Ctrl-C must end at once, whatever it makes of the signal.
attended() {
	local status=0
	env --default-signal=INT,QUIT "$@" &
	child=$!
	wait "$child" || status=$?
	child=
	return "$status"
}

leave() {
	unwatch
	[ -z "$beside_pid" ] || kill "$beside_pid" 2>/dev/null || true
	if [ -n "$child" ] && kill "$child" 2>/dev/null; then
		wait "$child" || true
	fi
}

# Says what has been running for long: on a terminal in one line that changes.
watch_running() { # DIR
	[ -z "$unwatched" ] || return 0
	(
		trap 'kill "$!" 2>/dev/null; exit 0' TERM
		before='' began=$EPOCHSECONDS
		[ -t 1 ] && every=1 || every=15
		while sleep "$every" >/dev/null 2>&1 & wait "$!"; do
			# One that was killed has left its own.
			now=$(find "$1" -name '*.running' -newermt "@$began" \
				-printf '%P\t%T@\n' 2>/dev/null |
				awk -F '\t' -v now="$EPOCHSECONDS" '{ sub(/\.running$/, "", $1) }
					now - $2 >= 15 { printf "%s %d s, ", $1, now - $2 }')
			[ -n "$now$before" ] || continue
			before=$now
			if [ -t 1 ]; then
				printf '\r\033[K%s' "${now%, }"
			elif [ -n "$now" ]; then
				printf '   ... %s\n' "${now%, }"
			fi
		done
	) </dev/null &
	watch_pid=$!
}

unwatch() {
	[ -n "$watch_pid" ] || return 0
	kill "$watch_pid" 2>/dev/null || true
	wait "$watch_pid" 2>/dev/null || true
	watch_pid=
	[ ! -t 1 ] || printf '\r\033[K'
}

# Runs a command, and says so if that takes long.
timed() { # NAME COMMAND...
	local dir=build/running/$BASHPID status=0
	mkdir -p "$dir"
	: >"$dir/${1//\//-}.running"
	watch_running "$dir"
	"${@:2}" || status=$?
	unwatch
	rm -r "$dir"
	return "$status"
}

# Runs a build step quietly, one at a time in this tree.  A failed one is a
# failed check.
build() { # NAME COMMAND...
	local log="build/log/${1//[ \/]/-}"
	! timed "build $1" locked "$log" "${@:2}" || return 0
	fail "build $1" "see $log" "$log"
	return 1
}

configure() { # PRESET
	if [ ! -e "build/$1/build.ninja" ] || \
		[ CMakePresets.json -nt "build/$1/build.ninja" ]; then
		cmake --preset "$1"
	fi
}

locked() { # LOG COMMAND...
	(flock 9; shift; "$@" 9>&-) 9>build/lock </dev/null >"$1" 2>&1
}

# -k 0: what one broken file does not reach is built, and tested.
build_preset() { # PRESET [TARGET...]
	local preset=$1
	shift
	configure "$preset"
	ninja --quiet -C "build/$preset" -k 0 "$@"
}

module() { echo "build/kernel/$kernel/ummunotify.ko"; }

# What every guest run needs.
prepare_guest() {
	say "kernel $kernel and its module" >&2
	tests/vm/prepare "$kernel" || {
		fail "kernel $kernel" "tests/vm/prepare: status $?"; return 1; }
	build "module for $kernel" tests/vm/module "$kernel" "build/kernel/$kernel"
}
