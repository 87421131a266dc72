# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of run
#
# ./run coverage; for run to source.

# Tests of the guest that use the library, with the real monitor behind it.
coverage_tests=(test_command test_preload test_wire_cases)
# Percent of the lines that must be reached, and the sources, as gcovr wants them.
coverage_goals=("95 lib" "90 lib/preload" "80 tools/mrcache")

# gcovr puts a file of its own in the place of what it writes to: never name a
# device here.
report_coverage() { # DIR
	local dir=$1 goal least part
	gcovr --root . build/coverage --filter lib/ --filter tools/mrcache/ \
		--json "$dir/coverage.json" --txt "$dir/lines.txt" \
		--html-details "$dir/index.html" 2>"$dir/log" ||
		{ fail "coverage" "gcovr: status $?" "$dir/log"; return; }
	gcovr --root . --add-tracefile "$dir/coverage.json" --branches \
		--txt "$dir/branches.txt" 2>>"$dir/log"
	cat "$dir/lines.txt"
	for goal in "${coverage_goals[@]}"; do
		read -r least part <<<"$goal"
		if gcovr --root . --add-tracefile "$dir/coverage.json" \
			--filter "$part/[^/]*\$" --fail-under-line "$least" \
			--print-summary --txt "$dir/part.txt" >"$dir/summary" \
			2>>"$dir/log"; then
			pass 1
			printf 'ok    %-42s %s\n' "coverage of $part" \
				"$(sed 's/^\([a-z]*:\) \([0-9.]*%\) .*/\1 \2/' \
					"$dir/summary" | xargs)"
		else
			fail "coverage of $part" "less than $least % of its lines" \
				"$dir/summary"
		fi
	done
}

# Programs add what they reached to the files beside their objects, also those
# that run as nobody.  The guest cannot write there, so its tests come first, and
# their files are copied.
cmd_coverage() {
	local dir=build/results/coverage
	local -a names=("${coverage_tests[@]}")
	[ $# = 0 ] || misuse "coverage takes no arguments"
	packages+=("${coverage_packages[@]}")
	packages+=("${program_packages[@]}")
	(setup) || { fail set-up "status $?"; summary; }
	presets=(coverage)
	guest_preset=coverage
	build coverage build_preset coverage || summary
	find build/coverage -name '*.gcda' -delete
	rm -rf "$dir"
	mkdir -p "$dir"
	if prepare_guest; then
		test_guest
		cp -r "build/results/guest-coverage/gcov$PWD/build/coverage" build/
	fi
	umask 0
	chmod -R a+rwX build/coverage
	names=()
	test_unit
	report_coverage "$dir"
	summary
}
