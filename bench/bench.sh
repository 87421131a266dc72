# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of run
#
# ./run bench; for run to source.

benches=(hit driver reuse libfabric odp mpi)
# The kernel whose soft-RoCE has on-demand paging.
odp_kernel=7.2

# The host's own, and those that need the driver or RDMA.
run_bench() { # NAME
	local out=build/results/bench/$1
	local -a command=("build/release/bench/bench-$1" "${quick[@]}")
	case $1 in
	hit)
		attended "${command[@]}" --json "$out.json"
		return ;;
	odp)
		local kernel=$odp_kernel
		command=(build/release/bench/bench-reuse --only odp "${quick[@]}") ;;
	mpi)
		{ prepare_guest && build_shim; } >&2 || return
		command=(bench/mpi.py "${quick[@]}")
		# Times of two processors, and what one has to do, whose series
		# say themselves that they are instructions.
		bench_in_guest "$out" --mem 4096 || return
		out+=-instructions
		command+=(--instructions)
		bench_in_guest "$out" --mem 4096 --icount --shift 3
		return ;;
	esac
	prepare_guest >&2 || return
	bench_in_guest "$out" || return
	# Times in an emulated guest say too little of the driver.
	[ "$1" != reuse ] || command+=(--only cycle)
	[[ $1 != driver && $1 != reuse ]] || bench_in_guest "$out-icount" --icount
}

bench_in_guest() { # OUT [OPTION...]; uses $command
	# shellcheck disable=SC2016 # RESULTS is the guest's
	attended setpriv --pdeathsig TERM tests/vm/guest --kernel "$kernel" \
		--time 1800 --module "$(module)" --results "$1" "${@:2}" -- sh -c \
		'exec "$@" --json "$RESULTS/bench.json"' sh "${command[@]}" ||
		return
	cp "$1/bench.json" "$1.json"
}

cmd_bench() {
	local name status=0
	[ $# -le 1 ] || misuse "bench takes one name"
	[ $# = 0 ] || [[ " ${benches[*]} " == *" $1 "* ]] ||
		misuse "unknown benchmark: $1 (known: ${benches[*]})"
	[ $# = 0 ] || benches=("$1")
	packages+=("${bench_packages[@]}" "${program_packages[@]}")
	[[ " ${benches[*]} " != *" odp "* ]] || kernels+=("$odp_kernel")
	setup
	say "building the library and the benchmarks" >&2
	build release build_preset release bench/all >&2 || exit 1
	alone bench
	rm -rf build/results/bench build/results/bench.json
	mkdir -p build/results/bench
	for name in "${benches[@]}"; do
		say "bench-$name" >&2
		run_bench "$name" || { fail "bench-$name" "status $?"; status=1; }
	done
	bench/report.py build/results/bench build/results/bench.json || status=1
	bench/plot.py build/results/bench.json build/results/bench || status=1
	exit "$status"
}
