# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of run
#
# What runs in a guest of its own, by a plan, without ctest: test_stress for as
# long as one likes, and mutants of the driver on a kernel that checks itself; for
# run to source.
#
# tests/mutations/{kernel,lib}/NAME.patch breaks one promise: see
# tests/runner/mutant for what stands before the diff, and what is run.  Here are
# those of a kernel that checks itself, Where: debug, with all of PROGRAM unless
# a line Case: names one, and what the fuzzers must find:
#   Log: PATTERN         not the tests find it, but the kernel, and says this
#   Fatal: PATTERN       or dies of it, so it has a guest of its own
#   Fuzz: TARGET         this one must find it, too (`./run fuzz`)
# Those of the driver that its programs must find are in tests/native/mutants.

# Patches of a kind with a place; sets $patch, $mutant, $tests for the command.
each_mutant() { # KIND WHERE COMMAND...
	local kind=$1 where=$2 patch mutant tests
	shift 2
	for patch in tests/mutations/"$kind"/*.patch; do
		[ "$(field "$patch" Where '')" = "$where" ] || continue
		mutant=$(basename "$patch" .patch)
		wanted "$mutant" || continue
		tests=$(field "$patch" Test '')
		"$@"
	done
}

# Whether a test under a mutant failed as it should.
judge_mutant() { # MUTANT TEST BASE STATUS
	local name="mutant $1: $2" base=$3 status=$4
	if [ "$status" = 0 ]; then
		fail "$name" "not caught: the test passes" "$base.tap"
	elif grep -E '^not ok' "$base.tap" | grep -qv '# SKIP' ||
		grep -q '^SUMMARY: .*Sanitizer' "$base.err"; then
		pass 1
		printf 'ok    %-42s caught\n' "$name"
	else
		fail "$name" "exit status $status, but no test says 'not ok'" \
			"$base.tap" "$base.err"
	fi
}

# A plan is what tests/vm/suite runs in one boot, a line for each program:
#   label module seconds program-and-arguments
add_to_plan() {
	printf '%s\t' "$@" >>"$plan"
	printf '\n' >>"$plan"
	seconds_in_all=$((seconds_in_all + $3))
}

# Boots once for the whole plan.  Results are in $results, LABEL.{tap,err,status}.
boot() { # [OPTION]
	mkdir -p "$results"
	attended setpriv --pdeathsig TERM tests/vm/guest "$@" --kernel "$kernel" \
		--time $((seconds_in_all + 120 * $(slowness))) \
		--results "$results" -- tests/vm/suite "$plan"
}

boot_plan() { # WHAT
	local status=0
	[ -s "$plan" ] || return 0
	timed "$1" boot || status=$?
	if [ "$status" = 0 ]; then
		pass 1
	else
		fail "$1" "the guest: status $status, see $results"
	fi
}

# Status of LABEL, or `never` and empty output files if it did not run.
guest_status() { # LABEL
	local base=$results/$1
	touch "$base.tap" "$base.err"
	[ -s "$base.status" ] || { echo never; return; }
	cat "$base.status"
}

# How much more time everything may take: what checks or counts itself is slow.
slowness() {
	[ "$kernel" = debug ] || [ "$guest_preset" = coverage ] && echo 10 || echo 1
}

# tests/guest/list: name, seconds, number of tests, reason for skips or `icount`
listed() { # NAME
	awk -v name="$1" -v times="$(slowness)" '
		$1 == name { $2 *= times; print; found = 1 }
		END { if (!found) print name, 60 * times, "-" }' tests/guest/list
}

start_plan() { # NAME
	results=build/results/$1
	plan=$results.plan
	seconds_in_all=0
	rm -rf "$results"
	mkdir -p build/results
	: >"$plan"
}

# The program test_stress, for a time and with a seed of the caller's choice.
test_stress() {
	local name=test_stress label=stress plan results seconds_in_all
	local seconds=${seconds:-60}
	[ "$kernel" = "$default_kernel" ] || label=stress-$kernel
	alone stress
	start_plan "$label"
	choose_seed
	say "stress, $guest_preset, kernel $kernel, $seconds seconds, seed $seed"
	build "$guest_preset" build_preset "$guest_preset" "$name" || return 0
	add_to_plan "$name" "$(module)" $((2 * seconds + 600)) \
		"build/$guest_preset/tests/guest/$name --seconds $seconds --seed $seed"
	boot_plan "kernel $kernel: log and module"
	judge "$label/$name" "$results/$name" "$(guest_status "$name")" \
		"$(listed "$name" | awk '{ print $3 }')" none
	sed -n 's/^#/ /p' "$results/$name.tap"
}

# What the kernel said while one of a plan ran, and of what was left in the end.
said() { # LABEL
	awk -v label="$1" '/ mrcache: / { on = $NF == label } on' "$results/dmesg"
	cat "$results/.guest/trouble"
}

# The kernel dies of it, and leaves no more than its console has.
fatal_mutant() { # PATTERN DIR; uses $patch, $mutant, $tests
	local dir=$2 results plan seconds_in_all status=0
	start_plan "mutant-$mutant"
	plan_mutant
	timed "mutant $mutant" boot --fatal >"$plan.log" 2>&1 || status=$?
	if [ "$status" = 125 ] && grep -qE -e "$1" "$results/console"; then
		fine "mutant $mutant" "the kernel dies of it"
	else
		fail "mutant $mutant" "status $status, not a kernel that died of '$1'" \
			"$plan.log"
	fi
}

# Adds one to the plan, or runs it.
kernel_mutant() { # uses $patch, $mutant, $tests
	local dir=build/kernel/$kernel-$mutant fatal
	build "mutant $mutant" tests/vm/module "$kernel" "$dir" "$patch" || return 0
	fatal=$(field "$patch" Fatal '')
	if [ -n "$fatal" ]; then
		fatal_mutant "$fatal" "$dir"
	else
		plan_mutant
	fi
}

plan_mutant() { # uses $patch, $mutant, $tests, $dir
	local test seconds cases
	cases=$(field "$patch" Case '')
	for test in $tests; do
		read -r _ seconds _ < <(listed "$test")
		add_to_plan "$mutant--$test" "$dir/ummunotify.ko" "$seconds" \
			"${cases:+env MRCACHE_TEST_CASE=$cases }build/$guest_preset/tests/guest/$test"
	done
}

# All but the fatal ones in one boot, and what the kernel says of one is no trouble
# but wanted.
test_debug_mutants() {
	local kernel=debug label name log plan results seconds_in_all status=0
	in_time "mutants, kernel debug" 5 && prepare_guest || return 0
	alone mutants-debug
	start_plan mutants-debug
	say "mutants, kernel $kernel"
	build "$guest_preset" build_preset "$guest_preset" tests/guest/all || true
	each_mutant kernel debug kernel_mutant
	[ -s "$plan" ] || return 0
	timed "mutants, kernel $kernel" boot >"$plan.log" 2>&1 || status=$?
	if [ "$status" != 0 ] && [ "$status" != 126 ]; then
		fail "mutants, kernel $kernel" "the guest: status $status" "$plan.log"
		return 0
	fi
	while read -r label _; do
		name=${label%%--*}
		log=$(field "tests/mutations/kernel/$name.patch" Log '')
		if [ -z "$log" ]; then
			judge_mutant "$name" "${label#*--}" "$results/$label" \
				"$(guest_status "$label")"
		elif said "$label" | grep -E -e "$log" >/dev/null; then
			fine "mutant $name" "the kernel says it"
		else
			fail "mutant $name" "the kernel does not say '$log', see $results"
		fi
	done <"$plan"
}
