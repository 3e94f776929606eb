# Sourced by the other scripts: sees to it that there is an adapter to run on, and more that several of them need.

# libEGL complains where this is unset.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"

# Installs Debian packages, or says what to install and stops.
install_packages() {
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "No apt-get here. Install the equivalent of these Debian packages and run this again: $*" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        else
            echo "Not allowed to install packages. Run this, then the script again: sudo apt-get install $*" >&2
            exit 1
        fi
    fi
    echo "installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Has cargo build what is ours by Clippy's compiler from here on, with warnings as errors: what is ours is linted and built at once, and what
# it depends on is compiled once, not for `cargo clippy` too. CLIPPY_ARGS is how `cargo clippy` hands its options on.
lint_while_building() {
    export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__
}

# What the demo lists, as cargo builds it with the given options.
list_adapters() {
    cargo run --quiet "$@" --example demo -- --list 2>/dev/null
}

# Where there is no Vulkan, Metal or DX12 adapter, installs the software one of Vulkan.
ensure_adapter() {
    local pattern='backend +(Vulkan|Metal|Dx12)'
    cargo build --quiet "$@" --example demo
    local adapters
    adapters=$(list_adapters "$@") || true
    if ! grep -qE "$pattern" <<<"$adapters"; then
        install_packages mesa-vulkan-drivers libvulkan1
        adapters=$(list_adapters "$@") || true
        if ! grep -qE "$pattern" <<<"$adapters"; then
            echo "mesa-vulkan-drivers is installed, and there is still no Vulkan adapter. Adapters: $adapters" >&2
            exit 1
        fi
    fi
}
