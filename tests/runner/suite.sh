# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of run
#
# The parts of ./run test; for run to source.

# Tests by ctest, with what they counted.  A test that counted nothing is one.
run_ctest() { # NAME BUILD LABELS [OPTION-OF-CTEST...]
	local name=$1 build=build/$2 labels=$3 xml=$PWD/build/results/$1.xml
	local dir=build/ctest/$1 pattern=. status=0 p f s one list
	shift 3
	mkdir -p build/results "$dir"
	# A directory of its own for what ctest writes: others may run beside it.
	echo "subdirs($PWD/$build)" >"$dir/CTestTestfile.cmake"
	rm -f "$xml"
	if [ ${#names[@]} -gt 0 ]; then
		pattern=$(printf '|%s' "${names[@]//./\\.}")
		pattern="(^|/)(${pattern#|})(\$|:)"
	fi
	list=$(ctest --test-dir "$dir" -N -L "$labels" -R "$pattern" "$@" 2>&1) || true
	for one in "${names[@]}"; do
		! grep -qE "[ /]${one//./\\.}(\$|:)" <<<"$list" || meet "$one"
	done
	if grep -q '^Total Tests: 0' <<<"$list"; then
		[ ${#names[@]} -gt 0 ] || fail "$name" "no tests"
		return 0
	fi
	watch_running "$build/results"
	attended setpriv --pdeathsig TERM ctest --test-dir "$dir" -j "$jobs" \
		-L "$labels" -R "$pattern" --output-on-failure --no-tests=ignore \
		--output-junit "$xml" "$@" || status=$?
	unwatch
	if [ ! -e "$xml" ]; then
		fail "$name" "ctest: status $status"
		return 0
	fi
	read -r p f s < <(tests/runner/count "$xml" \
		"${MRCACHE_COUNTS:-$build/results}")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	# It knows of something that nothing above does.
	[ "$status" = 0 ] || [ "$f" -gt 0 ] || fail "$name" "ctest: status $status"
}

# Whether NAME is wanted; no names means all.
wanted() { # NAME
	local name
	[ ${#names[@]} -gt 0 ] || return 0
	for name in "${names[@]}"; do
		[ "$name" != "$1" ] || { meet "$1"; return 0; }
	done
	return 1
}

# A name that is one of something; others are no tests at all.
meet() { printf '%s\n' "$1" >>"build/log/names.$$"; } # NAME

all_met() {
	local name
	for name in "${names[@]}"; do
		grep -qsxF -e "$name" "build/log/names.$$" ||
			fail "$name" "there is no such test here"
	done
	rm -f "build/log/names.$$"
}

# Two runs in one tree would mix their results.
alone() { # PART
	local lock
	[[ " $locked " != *" $1 "* ]] || return 0
	locked+=" $1"
	exec {lock}>"build/$1.lock"
	flock -n "$lock" && return
	say "waiting for another run of the $1 tests"
	flock "$lock"
}

# A seed to repeat it with, where the caller said none.
choose_seed() { : "${seed:=$(((RANDOM << 14 | RANDOM >> 1) + 1))}"; }

test_preset() { # PRESET
	local -a targets=()
	alone "unit-$1"
	[[ $1 != [at]san ]] || targets=(tests/unit/all)
	say "unit tests, $1"
	# What is not built fails by itself.
	build "$1" build_preset "$1" "${targets[@]}" || true
	run_ctest "$1" "$1" '^(unit|preload)$'
}

test_unit() {
	local preset
	for preset in "${presets[@]}"; do test_preset "$preset"; done
}

# What is the debug build's alone: valgrind, the models.
test_suite() { # LABEL
	build configure configure debug || return 0
	run_ctest "$1" debug "^$1\$"
}

test_unit_mutants() {
	say "mutants on this machine"
	test_suite mutant
}

test_analysis() {
	say "static analysis"
	test_suite analysis
}

test_native() { # [SECONDS]
	alone native
	choose_seed
	say "the driver as a program, --seed $seed"
	# For these alone: the library takes them for settings.
	MRCACHE_SECONDS=$((${1:-20} / 2)) MRCACHE_SEED=$seed test_suite native
}

# --- in a guest

# What sparse says of the driver; it leaves other sources' findings to others.
check_sparse() {
	local dir=build/kernel/$kernel-sparse
	patched_copy "$dir" - kernel include/linux || return
	tests/vm/kbuild "$kernel" "$dir/kernel" C=1 CHECK=sparse 2>&1 |
		tee "$dir/log" || return
	grep -q '^ *CHECK .*ummunotify\.c$' "$dir/log" ||
		{ echo "sparse did not run"; return 1; }
	! grep -E '(ummunotify|compat)[a-z_]*\.[ch]:[0-9]+:[0-9]+: ' "$dir/log"
}

test_sparse() {
	wanted sparse || return 0
	# Debian's headers of later kernels lack a script that C=1 needs.
	if [ ! -d "build/guest/$kernel/system" ] &&
		[ "$(tests/vm/prepare --arch "$kernel")" = amd64 ]; then
		build "sparse for $kernel" check_sparse || return 0
		pass 1
		printf 'ok    %-42s clean\n' "sparse for $kernel"
	fi
}

# Libraries on top of it all take long on a kernel that checks itself, and show
# nothing more of it; it counts its own checks, too.
not_on_debug='^(test_command|test_guard_.*|test_fork_init|test_protection|test_purge|test_hostile)$'

test_guest() {
	local name=guest
	local -a but=()
	[ "$kernel" = "$default_kernel" ] || name=guest-$kernel
	[ "$(tests/vm/prepare --arch "$kernel")" = amd64 ] ||
		local guest_preset=arm64
	[ "$guest_preset" = debug ] || name+=-$guest_preset
	alone "$name"
	say "guest tests, $guest_preset, kernel $kernel"
	build "$guest_preset" build_preset "$guest_preset" || true
	case $kernel,$guest_preset,${#names[@]} in
	debug,*,0) but=(-E "$not_on_debug") ;;
	# UCX 1.13 crashes there, plain, in the code that it patches.
	6.12-arm64-64k,*,0) but=(-E '^test_(hostile|guard_ucx)$') ;;
	debug,* | *,coverage,* | *,arm64,*) but=(-E '^test_hostile$') ;;
	esac
	# Another kernel may be beside it, with the same build.
	MRCACHE_KERNEL=$kernel MRCACHE_COUNTS=$PWD/build/ctest/$name \
		run_ctest "$name" "$guest_preset" '^guest$' "${but[@]}"
}

test_kernel() { # KERNEL
	local kernel=$1
	prepare_guest || return 0
	test_sparse
	test_guest
}

# The kernel that checks itself takes long to build: begun early.
prepare_debug() {
	local kernel=debug
	prepare_guest || true
}

test_debug() {
	local kernel=debug
	! in_time "tests, kernel debug" 25 || ! prepare_guest || test_guest
}

# Those whose case fails in the guest.
test_guest_mutants() {
	# That a test finds a mutant does not depend on the kernel.
	[ "$kernel" = "$default_kernel" ] && prepare_guest || return 0
	alone guest-mutants
	say "mutants in the guest, kernel $kernel"
	build debug build_preset debug tests/guest/all || true
	run_ctest guest-mutants debug '^guest-mutant$'
}

build_shim() {
	local preset=release
	[ "$(tests/vm/prepare --arch "$kernel")" = amd64 ] || preset=arm64
	build "$preset" build_preset "$preset" mrcache-preload mrcache-command
}

# Real programs, or the MPI stacks in the root of another release.
test_programs() { # [SUITE]
	local suite=${1:-} status=0 name=programs skips=none
	local results=build/results/programs${suite:+-$suite}
	wanted programs && prepare_guest || return 0
	alone programs
	[ -z "$suite" ] || name=stacks
	# Its UCX has been built without verbs.
	[ "$suite" != sid ] || skips=some
	say "real programs, kernel $kernel${suite:+, root of $suite}"
	build_shim || return 0
	timed "real programs" attended tests/programs/host --kernel "$kernel" \
		${suite:+--root "$suite"} tests || status=$?
	mkdir -p "$results"
	[ "$status" = 0 ] || fail programs "tests/programs/host: status $status"
	judge "$name${suite:+, $suite}" "$results/$name" "$(guest_status "$name")" - "$skips"
}

package_test() { # KIND [RELEASE]
	local base=build/results/packages/$1${2:+-$2} status=0
	wanted "$1" || return 0
	say "packages, $1${2:+, $2}"
	mkdir -p build/results/packages
	attended packaging/test "$@" >"$base.tap" 2>"$base.err" || status=$?
	judge "packages/$1${2:+, $2}" "$base" "$status" - none
}

test_packages() {
	local release kind
	alone packages
	package_test fast
	for release in $(packaging/test --list); do
		for kind in chroot mutants rpm guest; do
			package_test "$kind" "$release"
		done
	done
}

# --- what is run of all, and beside what

# Whether what takes MINUTES would end --within what was given; left out if not.
in_time() { # NAME MINUTES
	[ -n "$within" ] && [ $((SECONDS / 60 + $2)) -gt "$within" ] || return 0
	skipped=$((skipped + 1))
	printf 'skip  %-42s %d of %d minutes are over, it takes %d\n' "$1" \
		$((SECONDS / 60)) "$within" "$2"
	return 1
}

# Everything, by two.  What needs a guest stands first, what needs this machine
# alone last: two guests at once would wait for each other's processors.
test_all() {
	local -a parts=("test_kernel $kernel" test_guest_mutants test_programs)
	# The kernel that checks itself takes longest, and is waited for.
	[ -z "$full" ] || parts+=(test_debug_mutants test_debug
		"fuzz_device $((fuzz_seconds / 2)) debug"
		"fuzz_here $((fuzz_seconds / 2))")
	parts+=("${presets[@]/#/test_preset }" "test_native${seconds:+ $seconds}"
		"test_suite valgrind" "test_suite model" test_unit_mutants
		test_analysis)
	[ -z "$full" ] || parts+=(prepare_debug)
	by_two 10 "${parts[@]}"
}

# --- parts, each taken by whoever of two is free

# Takes one off an end of the queue, `1` or `$`; none is left if it prints nothing.
next_part() { # END
	flock build/queue.lock sed -n -i -e "$1w /dev/stdout" -e "$1!p" build/queue
}

take_parts() { # END
	local line began
	while line=$(next_part "$1") && [ -n "$line" ]; do
		began=$SECONDS
		# shellcheck disable=SC2086 # a function and its arguments
		$line
		say "$line took $((SECONDS - began)) s"
	done
}

# The second takes from the end; the nicer it is, the more of the processors is the
# first's, as in nice(1).
by_two() { # NICENESS PART...
	printf '%s\n' "${@:2}" >build/queue
	if [ $# = 2 ]; then
		take_parts 1
	else
		beside "$1" take_parts '$'
		take_parts 1
		join_beside
	fi
}

# Runs a function beside what follows.  What it prints comes at the end, and its
# counts.
# shellcheck disable=SC2030,SC2031 # these counts are its own, and come by a file
beside() { # NICENESS FUNCTION [ARGUMENT...]
	alone beside # another's counts would be taken for ours
	rm -f build/beside.counts
	(
		trap leave EXIT
		passed=0 failed=0 skipped=0 unwatched=yes
		# Nicer than all this is already: less so would be forbidden.
		renice -n "$(($(nice) + $1))" "$BASHPID" >/dev/null
		"${@:2}"
		printf '%d %d %d\n' "$passed" "$failed" "$skipped" >build/beside.counts
	) </dev/null >build/log/beside 2>&1 &
	beside_pid=$!
}

# shellcheck disable=SC2031
join_beside() {
	local p f s
	# The shell may have seen it end already.
	timed "the tests beside these" wait "$beside_pid" 2>/dev/null || true
	beside_pid=
	cat build/log/beside
	if read -r p f s <build/beside.counts; then
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	else
		fail "the tests beside these" "did not get to their end"
	fi
}

# Whether one of these is to be tested; uses $part.
part_of() {
	local name
	for name in all "$@"; do
		[ "$part" != "$name" ] || return 0
	done
	return 1
}
