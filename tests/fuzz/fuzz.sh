# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of run
#
# ./run fuzz, and what `./run test full` fuzzes; for run to source.
#
# tests/fuzz/NAME.c are programs that first get the inputs of
# tests/fuzz/corpus/NAME, then new ones: those of libFuzzer, and `device`, which
# runs in the guest.  `native` is tests/native/fuzz.c, and gets as much time as
# the others together.  What they learn stays in build/fuzzed; an input that
# breaks something is left in build/results/fuzz as NAME-..., for --replay.

fuzzers=(config events program stat)

# One program; BASE.err has what it says, its status is in $status.
run_fuzzer() { # PROGRAM BASE SECONDS ARG...
	local program=$1 base=$2 seconds=$3
	shift 3
	status=0
	# What a closed cache leaves is no leak, but libFuzzer would look for one.
	timed "${base##*/}" attended timeout -k 5 "$seconds" "$program" -detect_leaks=0 -timeout=60 \
		-rss_limit_mb=4096 -artifact_prefix="$base-" "$@" \
		</dev/null >"$base.out" 2>"$base.err" || status=$?
}

judge_fuzzer() { # NAME BASE STATUS TEXT
	if [ "$3" = 0 ]; then
		pass 1
		printf 'ok    %-42s %s\n' "$1" "$4"
		return
	fi
	# What it wrote while all was well is of no interest.
	tail -n 60 "$2.err" >"$2.end"
	fail "$1" "exit status $3" "$2.end"
}

# What libFuzzer says at the end.
fuzzed() { # BASE
	awk '/^#[0-9]+.* cov: / { cov = $4 }
		/^stat::number_of_executed_units/ { n = $2 }
		/^stat::average_exec_per_sec/ { rate = $2 }
		END { printf "%d inputs, %d/s, %d edges", n, rate, cov }' "$1.err"
}

# One program: what is known, and then what it finds in SECONDS.
fuzz_program() { # NAME PROGRAM SECONDS OPTION...
	local name=$1 program=$2 seconds=$3 corpus=tests/fuzz/corpus/$1
	local learned=build/fuzzed/$1 base=build/results/fuzz/$1 status inputs
	shift 3
	[ -z "$replay" ] || corpus=$replay
	mapfile -t inputs < <(find "$corpus" -type f)
	run_fuzzer "$program" "$base-corpus" 300 "${inputs[@]}"
	judge_fuzzer "fuzz/$name, its corpus" "$base-corpus" "$status" \
		"${#inputs[@]} inputs"
	[ -z "$replay" ] || return 0
	mkdir -p "$learned"
	run_fuzzer "$program" "$base" $((seconds * 3 + 120)) "$@" \
		-max_total_time="$seconds" -seed="$seed" -print_final_stats=1 \
		"$learned" "$corpus"
	judge_fuzzer "fuzz/$name" "$base" "$status" "$(fuzzed "$base")"
}

fuzz_library() { # NAME SECONDS
	build "fuzz $1" build_preset fuzz "fuzz_$1" || return 0
	fuzz_program "$1" "build/fuzz/tests/fuzz/fuzz_$1" "$2" -max_len=512
}

# The driver as a program.
fuzz_native() { # SECONDS
	build "fuzz native" tests/native/run build || return 0
	fuzz_program native build/native/fuzz "$1" -entropic=0 -max_len=256
}

# The device, in the guest; the module records where it has been if the kernel
# lets it.  Then mutants of the driver.
fuzz_device() { # SECONDS [KERNEL]
	local seconds=$1 kernel=${2:-$kernel}
	local dir=build/kernel/$kernel-fuzz corpus=tests/fuzz/corpus/device
	local results plan seconds_in_all status mutant
	in_time fuzz/device 10 && prepare_guest || return 0
	build "fuzz device" build_preset "$guest_preset" fuzz_device || return 0
	build "module to fuzz" tests/vm/module "$kernel" "$dir" - KCOV_INSTRUMENT=y || return 0
	start_plan fuzz/device
	mkdir -p build/fuzzed/device
	if [ -n "$replay" ]; then
		plan_device device "$dir" 0 "$replay"
	else
		plan_device device "$dir" "$seconds" "$corpus build/fuzzed/device"
		each_mutant kernel guest plan_fuzz_mutant
	fi
	boot_plan "fuzz/device: log and module"
	cp -r "$results/device-new/learned/." build/fuzzed/device
	while read -r mutant _; do
		status=$(guest_status "$mutant")
		if [ "$mutant" = device ]; then
			judge_fuzzer "fuzz/device, kernel $kernel" "$results/device" \
				"$status" "$(tail -n 1 "$results/device.tap")"
		else
			judge_fuzz_mutant "$mutant" device "$results/$mutant" "$status"
		fi
	done <"$plan"
}

plan_device() { # LABEL MODULE-DIR SECONDS INPUTS
	mkdir -p "$results/$1-new/learned"
	add_to_plan "$1" "$2/ummunotify.ko" $((3 * $3 + 300 * $(slowness))) \
		"build/$guest_preset/tests/fuzz/fuzz_device $3 $seed $results/$1-new $4"
}

plan_fuzz_mutant() {
	local dir=build/kernel/$kernel-$mutant
	[ "$(field "$patch" Fuzz '')" = device ] || return 0
	build "mutant $mutant" tests/vm/module "$kernel" "$dir" "$patch" || return 0
	plan_device "$mutant" "$dir" 60 tests/fuzz/corpus/device
}

# A mutant that the fuzzer has to find.
fuzz_mutant() {
	local target status base=build/results/fuzz/$mutant
	local dir=build/mutant/fuzz out
	target=$(field "$patch" Fuzz '')
	[ -n "$target" ] || return 0
	build "mutant $mutant, fuzz" build_patched "$dir" "$patch" fuzz \
		"fuzz_$target" || return 0
	mkdir "$base-learned"
	out=$(patched_build "$dir" "$patch" fuzz)
	run_fuzzer "$out/tests/fuzz/fuzz_$target" "$base" 300 \
		-max_total_time=120 -seed="$seed" -max_len=512 "$base-learned" \
		"tests/fuzz/corpus/$target"
	judge_fuzz_mutant "$mutant" "$target" "$base" "$status"
}

judge_fuzz_mutant() { # MUTANT TARGET BASE STATUS
	local name="mutant $1: fuzz/$2"
	if [ "$4" = 0 ]; then
		fail "$name" "not found"
	elif grep -qE "tests/fuzz/$2\.c:[0-9]+: |^SUMMARY: .*Sanitizer" "$3.err"; then
		pass 1
		printf 'ok    %-42s found\n' "$name"
	else
		fail "$name" "exit status $4, but no check failed" "$3.err"
	fi
}

cmd_fuzz() {
	names=("$@")
	# The one that checks itself, unless another is asked for or it would have
	# to be built first.
	if [ -z "$kernel_given" ] && [ -e build/guest/debug/release ]; then
		kernel=debug
		kernels=("$kernel")
	fi
	packages+=("${fuzz_packages[@]}")
	(setup) || { fail set-up "status $?"; summary; }
	fuzz
	all_met
	summary
}

begin_fuzzing() {
	local name
	choose_seed
	fuzz_seconds=${seconds:-60}
	alone fuzz
	if [ -n "$replay" ]; then
		name=$(basename "$replay")
		names=("${name%%-*}")
	else
		rm -rf build/results/fuzz
		say "fuzzing for $fuzz_seconds seconds, --seed $seed"
	fi
	mkdir -p build/results/fuzz
}

# One half is for the device.
fuzz() {
	begin_fuzzing
	fuzz_here $((fuzz_seconds / 2))
	! wanted device || fuzz_device $((fuzz_seconds / 2))
}

# What needs no guest.
fuzz_here() { # SECONDS
	local name
	for name in "${fuzzers[@]}"; do
		! wanted "$name" || fuzz_library "$name" $(($1 / ${#fuzzers[@]} + 1))
	done
	! wanted native || fuzz_native "$1"
	each_mutant lib unit fuzz_mutant
}
