# scripts/up and scripts/test source this file. They set ROOT (the checkout) and LOG (where installers write).
# Afterwards the packages and .venv exist; otherwise it has said what is missing and exited with 1.
# Plain sh, and nothing that a fresh Debian lacks: no sudo, ps, curl, ss, systemctl, gcc.

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

now_ms() {
    echo $(($(date +%s%N) / 1000000))
}

# step TEXT: on a terminal, shows a line until the step is done.
step() {
    STEP_BEGAN=$(now_ms)
    if [ -t 1 ]; then printf '  ..  %s' "$1"; fi
}

step_done() {
    if [ -t 1 ]; then printf '\r\033[K'; fi
    took=$(($(now_ms) - STEP_BEGAN))
    if [ "$took" -lt 10000 ]; then
        took="$((took / 1000)).$((took % 1000 / 100)) s"
    else
        took="$((took / 1000)) s"
    fi
    printf '  ok  %-58s %10s\n' "$1" "$took"
}

# step_failed TEXT: the step was not done, and the rest goes on without it.
step_failed() {
    if [ -t 1 ]; then printf '\r\033[K'; fi
    printf '  --  %s\n' "$1"
}

# give_up WHAT ADVICE [LOG]: prints what failed, the last lines of its log, and what to do; exits.
give_up() {
    if [ -t 1 ]; then printf '\r\033[K'; fi
    echo "$1" >&2
    if [ -n "${3:-}" ] && [ -s "$3" ]; then tail -n 12 "$3" | sed 's/^/    /' >&2; fi
    echo "$2" >&2
    exit 1
}

is_debian() {
    command -v apt-get >/dev/null 2>&1 && grep -qsE '^ID(_LIKE)?=.*debian' /etc/os-release
}

missing_packages() {
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || echo python3-venv
    command -v redis-server >/dev/null 2>&1 || echo redis-server
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || echo rabbitmq-server
}

redis_version() {
    redis-server --version | sed 's/.*v=\([0-9.]*\).*/\1/'
}

rabbitmq_version() {
    for folder in /usr/lib/rabbitmq/lib/rabbitmq_server-*; do echo "${folder##*-}"; done
}

# as_root COMMAND…: runs it as root, if need be by sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

setup_packages() {
    step "packages"
    # shellcheck disable=SC2046 # a list of words
    set -- $(missing_packages)
    if [ $# -gt 0 ]; then
        if ! is_debian; then
            give_up "Nearfetch needs, and did not find: $*" \
                "It installs them itself only on Debian. Nearfetch needs Python 3.11 or later with venv and ensurepip, redis-server 7.2 or later, RabbitMQ 4.0 or later with its programs in /usr/lib/rabbitmq/bin. Install these and run this again."
        fi
        if [ "$(id -u)" -ne 0 ]; then
            command -v sudo >/dev/null 2>&1 || give_up "Packages are missing ($*), and there is no sudo to install them with." \
                "As root: apt-get update && apt-get install --no-install-recommends $*   Then run this again."
            if [ ! -t 0 ] && ! sudo -n true 2>>"$LOG"; then
                give_up "Packages are missing ($*), and sudo did not let this user install them:" \
                    "As root: apt-get update && apt-get install --no-install-recommends $*   Then run this again." "$LOG"
            fi
            # The password is asked for before anything else is printed.
            if [ -t 0 ]; then
                printf '\n'
                sudo -v || give_up "Packages are missing ($*), and sudo refused." \
                    "As root: apt-get update && apt-get install --no-install-recommends $*   Then run this again."
            fi
        fi
        as_root apt-get -o DPkg::Lock::Timeout=300 update >>"$LOG" 2>&1 ||
            give_up "apt-get update failed:" "Repair this machine's package sources, then run this again. The whole log: $LOG" "$LOG"
        as_root apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >>"$LOG" 2>&1 ||
            give_up "apt-get install $* failed:" "Fix that, then run this again. The whole log: $LOG" "$LOG"
    fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || give_up "Python $(python_version) is too old." \
        "Nearfetch needs Python 3.11 or later as python3."
    step_done "apt: redis-server $(redis_version), rabbitmq-server $(rabbitmq_version)"
}

# seconds_to_download: what is left of the five minutes that all downloads of setup_for_tests and setup_prometheus may take together.
# Chromium is 70 MB, and nobody waits for a slow mirror for what a few tests need.
seconds_to_download() {
    if [ -z "${DOWNLOADS_END:-}" ]; then DOWNLOADS_END=$(($(now_ms) / 1000 + 300)); fi
    left=$((DOWNLOADS_END - $(now_ms) / 1000))
    if [ "$left" -lt 1 ]; then left=1; fi
}

# setup_for_tests: installs what only some tests need. Where it is missing, they are skipped and say so.
setup_for_tests() {
    missing=
    command -v cron >/dev/null 2>&1 || missing=cron
    command -v luacheck >/dev/null 2>&1 || missing="$missing lua-check"
    command -v curl >/dev/null 2>&1 || missing="$missing curl"
    command -v chromium-headless-shell >/dev/null 2>&1 || missing="$missing chromium-headless-shell"
    if [ -z "$missing" ] || ! is_debian; then return; fi
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>>"$LOG"; then return; fi
    seconds_to_download
    as_root timeout "$left" apt-get -o DPkg::Lock::Timeout=300 update >>"$LOG" 2>&1 || true
    for package in $missing; do
        step "$package"
        set -- apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$package"
        seconds_to_download
        if as_root timeout "$left" "$@" --download-only >>"$LOG" 2>&1 && as_root "$@" >>"$LOG" 2>&1; then
            step_done "apt: $package"
        else
            step_failed "$package can't be installed from here, and what needs it is skipped"
        fi
    done
}

# setup_prometheus: takes prometheus and promtool out of Debian's packages into .venv. They are not installed, since the package
# starts a server that everybody can reach.
setup_prometheus() {
    if ! is_debian; then return; fi
    for program in prometheus promtool; do
        if command -v "$program" >/dev/null 2>&1 || [ -x "$ROOT/.venv/bin/$program" ]; then continue; fi
        step "$program"
        folder=$(mktemp -d "$ROOT/.venv/$program.XXXXXX")
        seconds_to_download
        if (cd "$folder" && timeout "$left" apt-get download "$program" && dpkg -x "$program"_*.deb .) >>"$LOG" 2>&1; then
            mv "$folder/usr/bin/$program" "$ROOT/.venv/bin/$program"
            step_done "$program, from Debian's package"
        else
            step_failed "$program can't be downloaded from here, and what needs it is skipped"
        fi
        rm -rf "$folder"
    done
}

python_version() {
    python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# installed_line FILE: the line in .venv/installed that says that this requirements file is completely installed.
installed_line() {
    echo "$1 $(cat "$ROOT"/requirements*.txt | sha256sum | cut -c 1-32)"
}

# setup_venv FILE…: makes .venv with these requirements files. "installed" is written last: without it, the folder is half made.
setup_venv() {
    step "virtual environment"
    exec 9<"$ROOT/scripts/setup.sh" # one at a time in a checkout
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    venv="$ROOT/.venv"
    version="python $(python_version)"
    new=
    if [ "$(head -n 1 "$venv/installed" 2>/dev/null)" != "$version" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" >>"$LOG" 2>&1 9<&- ||
            give_up "The virtual environment could not be made in $venv:" "Fix that, then run this again." "$LOG"
    fi
    for file; do
        line=$(installed_line "$file")
        if grep -qsxF "$line" "$venv/installed"; then continue; fi
        kept=$(cat "$venv/installed" 2>/dev/null || echo "$version")
        rm -f "$venv/installed"
        new=yes
        "$venv/bin/python" -m pip install --no-input --no-compile -r "$ROOT/$file" >>"$LOG" 2>&1 9<&- ||
            give_up "pip install -r $file failed:" "Is there a network, or a mirror in pip's configuration? The whole log: $LOG" "$LOG"
        printf '%s\n%s\n' "$kept" "$line" >"$venv/installed.new"
        mv "$venv/installed.new" "$venv/installed"
    done
    # pip would compile on one processor, which takes longer than the rest. A package may have files for other versions of Python.
    if [ -n "$new" ]; then "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >>"$LOG" 2>&1 9<&- || true; fi
    exec 9<&-
    step_done "$version, virtual environment"
}
