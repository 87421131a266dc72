# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
#
# Counts what tests say; for scripts to source.

passed=0
failed=0
skipped=0

pass() { # COUNT
	passed=$((passed + $1))
}

# One check that is well.
fine() { # NAME WHAT
	pass 1
	printf 'ok    %-42s %s\n' "$1" "$2"
}

# What failed, for the end of a run: by all of its processes.
failures=build/failures

# One failed check; each FILE is printed whole.
fail() { # NAME WHY [FILE...]
	local name=$1 why=$2 file
	shift 2
	failed=$((failed + 1))
	printf 'FAIL  %-42s %s\n' "$name" "$why" | tee -a "$failures"
	[ $# = 0 ] || grep -sh -A 1 '^not ok' "$@" | grep -v '^--$\|# SKIP' |
		sed 's/^/      /' >>"$failures" || true
	for file in "$@"; do
		[ ! -s "$file" ] || sed 's/^/    | /' "$file"
	done
}

# Numbers of a TAP file: plan, ok, not ok, skipped.  cmocka writes a skipped
# test as "not ok N # SKIP", and one plan for each group.
tap_numbers() {
	awk '/^1\.\.[0-9]+/ { sub(/^1\.\./, ""); plan += $1; next }
	     /^(not )?ok [0-9]+ .*# SKIP/ { skip++; next }
	     /^ok [0-9]+/ { ok++; next }
	     /^not ok [0-9]+/ { bad++ }
	     END { print plan + 0, ok + 0, bad + 0, skip + 0 }' "$1"
}

# Counts the cases of one program.  SKIPS says how many may be skipped: none,
# some, or all.
judge() { # NAME BASE STATUS EXPECTED SKIPS; BASE.tap, BASE.err
	local name=$1 base=$2 status=$3 expected=$4 skips=$5
	local plan ok bad skip why=
	read -r plan ok bad skip < <(tap_numbers "$base.tap")
	case $status in
	0) ;;
	124 | 137) why="timed out" ;;
	*) [ "$bad" -gt 0 ] || why="exit status $status" ;;
	esac
	if [ -z "$why" ]; then
		if [ "$plan" = 0 ]; then
			why="no plan"
			[ -z "${MRCACHE_TEST_CASE:-}" ] ||
				why="no case is called $MRCACHE_TEST_CASE"
		elif [ $((ok + bad + skip)) != "$plan" ]; then
			why="planned $plan, ran $((ok + bad + skip))"
		elif [ "$expected" != - ] && [ "$plan" != "$expected" ]; then
			why="expected $expected tests, planned $plan"
		elif [ "$skips" = none ] && [ "$skip" -gt 0 ]; then
			why="$skip skipped without a listed reason"
		elif [ "$skips" = some ] && [ "$skip" = "$plan" ]; then
			why="all skipped without a listed reason"
		fi
	fi
	pass "$ok"
	if [ "$bad" -gt 0 ]; then
		why="$bad failed${why:+, $why}"
		failed=$((failed + bad - 1))
	fi
	[ "$skips" = none ] || skipped=$((skipped + skip))
	if [ -n "$why" ]; then
		fail "$name" "$why" "$base.tap" "$base.err"
	else
		printf 'ok    %-42s %s passed%s\n' "$name" "$ok" \
			"$([ "$skip" = 0 ] || echo ", $skip skipped")"
	fi
}

# The last line, and whether all is well.
summary() {
	[ $((passed + failed)) -gt 0 ] || fail all "no tests"
	if [ "$failed" != 0 ] && [ -s "$failures" ]; then
		printf '\nwhat failed:\n'
		cat "$failures"
	fi
	printf '%d passed, %d failed' "$passed" "$failed"
	[ "$skipped" = 0 ] || printf ', %d skipped' "$skipped"
	printf '\n'
	[ "$failed" = 0 ]
}
