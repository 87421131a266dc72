# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of run
#
# Packages that ./run needs, and installing them; for run to source.

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Whether as_root can; nobody is there to be asked for a password.
may_be_root() {
	[ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

missing_packages() {
	local package
	for package in "${packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null |
			head -c 9)" = installed ] || printf '%s\n' "$package"
	done
}

# What apt would download, as a person says it; nothing if it cannot tell.
download_size() { # PACKAGE...
	apt-get -q --no-install-recommends --print-uris -y install "$@" 2>/dev/null |
		awk "/^'/ { bytes += \$3 }
			END { if (bytes) printf \", %.0f MB to download\", bytes / 1e6 }"
}

install_packages() {
	local -a missing
	mapfile -t missing < <(missing_packages)
	[ ${#missing[@]} -gt 0 ] || return 0
	may_be_root || die "packages are missing, and this user can become root only with a
password, or not at all.  As root:

    apt-get install --no-install-recommends ${missing[*]}
"
	local -a install=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q
		--no-install-recommends install "${missing[@]}")
	# The package list may be absent or too old.
	if ! apt-get -q -s --no-install-recommends install "${missing[@]}" \
		>/dev/null 2>&1; then
		say "updating the package list" >&2
		as_root apt-get -q update </dev/null >build/log/apt 2>&1 ||
			{ cat build/log/apt >&2; die "cannot update the package list"; }
	fi
	say "installing ${missing[*]}$(download_size "${missing[@]}")" >&2
	if ! as_root "${install[@]}" </dev/null >>build/log/apt 2>&1; then
		as_root apt-get -q update </dev/null >>build/log/apt 2>&1 ||
			{ cat build/log/apt >&2; die "cannot update the package list"; }
		as_root "${install[@]}" </dev/null >>build/log/apt 2>&1 ||
			{ cat build/log/apt >&2; die "cannot install the packages"; }
	fi
}

setup() {
	case $PWD in *[[:space:]]*) die "kbuild cannot work in a path with spaces" ;; esac
	local version
	[ "$(command -v dpkg-query apt-get | wc -l)" = 2 ] ||
		die "this needs Debian 12, or a container of it: kernels and these packages are
installed by apt:

$(printf '%s\n' "${packages[@]}" "${program_packages[@]}" | fmt -w 76)

The library and the command alone build elsewhere, too: see docs/install.md."
	mkdir -p build/log
	rm -f build/failures
	for version in "${kernels[@]}"; do
		mapfile -t -O "${#packages[@]}" packages < \
			<(tests/vm/prepare --packages "$version")
	done
	install_packages
}
