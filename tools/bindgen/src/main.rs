//! Turns the Worker's wasm into the modules that Cloudflare's runtime loads.
//!
//! ```text
//! keyreeve-bindgen MODULE.wasm FOLDER
//! ```
//!
//! It is wasm-bindgen's own library, of the version that the Worker is compiled with, because both are in one lock file.
//! FOLDER gets
//!
//! - `index.js`: what the platform calls, see [`shim`]
//! - `glue.js`: what wasm-bindgen generates, and the `snippets` of JavaScript that crates bring along
//! - `keyreeve.wasm`
//!
//! It neither compiles nor optimizes nor bundles: `scripts/build-worker` does.

mod shim;

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use wasm_bindgen_cli_support::Bindgen;

/// wasm-bindgen imports the module by a proposal that bundlers and older runtimes do not know. On Cloudflare a plain
/// import means the same.
const GENERATED_IMPORT: &str = r#"import source wasmModule from "./glue_bg.wasm";"#;
const PLAIN_IMPORT: &str = r#"import wasmModule from "./keyreeve.wasm";"#;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, folder] = arguments.as_slice() else {
        return Err("usage: keyreeve-bindgen MODULE.wasm FOLDER".into());
    };
    generate(Path::new(module), Path::new(folder))
}

fn generate(module: &Path, folder: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    // The two that follow `module` let an isolate go on after an abort, with a fresh memory.
    let mut output = Bindgen::new()
        .input_path(module)
        .out_name("glue")
        .typescript(false)
        .remove_name_section(true)
        .module(true)?
        .reset_state_function(true)
        .force_enable_abort_handler(true)
        .generate_output()?;
    output.emit(folder)?;

    let glue = fs::read_to_string(folder.join("glue.js"))?;
    if !glue.contains(GENERATED_IMPORT) {
        return Err(format!("wasm-bindgen no longer writes `{GENERATED_IMPORT}`").into());
    }
    fs::write(folder.join("glue.js"), glue.replace(GENERATED_IMPORT, PLAIN_IMPORT))?;
    fs::rename(folder.join("glue_bg.wasm"), folder.join("keyreeve.wasm"))?;
    fs::write(folder.join("index.js"), shim::of(&glue)?)?;
    Ok(())
}
