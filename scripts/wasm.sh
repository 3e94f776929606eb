# Sourced by scripts/web and scripts/test-web: builds web/ for the browser, installing what that takes where it is missing.

. scripts/adapters.sh

# Finds a cargo that builds for wasm32-unknown-unknown: the one that is there, if its compiler has the target or rustup can add it, or
# else Debian's, which has the standard library as source. WASM_TOOLCHAIN=debian takes that in any case.
find_wasm_cargo() {
    local target=wasm32-unknown-unknown package missing=()
    wasm_cargo=(cargo)
    wasm_options=()
    if [ "${WASM_TOOLCHAIN:-}" != debian ]; then
        [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || return 0
        ! { command -v rustup >/dev/null && rustup target add "$target"; } || return 0
    fi
    for package in rustc-web cargo-web rust-web-src lld-19; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
    # The compiler of a release lets through what building the standard library takes only where it is told to.
    wasm_cargo=(env RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 /usr/bin/cargo)
    wasm_options=(-Zbuild-std=std,panic_abort)
}

# Installs the wasm-bindgen that belongs to the one in web/Cargo.lock: their versions must be the same.
ensure_wasm_bindgen() {
    local version
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/version = "\(.*\)"/\1/p}' web/Cargo.lock)
    wasm_bindgen=web/target/tools/bin/wasm-bindgen
    if [ "$("$wasm_bindgen" --version 2>/dev/null)" != "wasm-bindgen $version" ]; then
        echo "installing wasm-bindgen $version"
        # An unoptimized build takes half as long, and is fast enough.
        cargo install --quiet --debug --root web/target/tools wasm-bindgen-cli --version "$version"
    fi
}

# build_wasm FOLDER FEATURES: an ES module, with the wasm beside it.
build_wasm() {
    "${wasm_cargo[@]}" build --quiet --locked --release "${wasm_options[@]}" --manifest-path web/Cargo.toml \
        --target-dir web/target --target wasm32-unknown-unknown --lib --no-default-features --features "$2"
    # Without the names of functions, which are up to a quarter of it.
    "$wasm_bindgen" --target web --remove-name-section --remove-producers-section --out-dir "$1" \
        web/target/wasm32-unknown-unknown/release/gpu_layer_norm_web.wasm
}

# The page, into web/target/site.
build_page() {
    mkdir -p web/target/site
    cp web/page/* web/target/site
    build_wasm web/target/site/pkg page
}

# The npm package, into web/target/npm; `npm pack web/target/npm` makes the archive.
build_npm() {
    mkdir -p web/target/npm
    cp web/npm/* LICENSE-MIT LICENSE-APACHE web/target/npm
    build_wasm web/target/npm ''
    # What index.d.ts says in its place.
    rm -f web/target/npm/gpu_layer_norm_web.d.ts web/target/npm/gpu_layer_norm_web_bg.wasm.d.ts
}
