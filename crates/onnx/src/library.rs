//! Finds and loads the ONNX Runtime library, once in a process.

use std::{
    env,
    ffi::CStr,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use ort::environment::Environment;

use crate::Error;

/// Where the set-up lays the library, relative to the project's root.
const RELATIVE: &str = ".runtime/onnxruntime/libonnxruntime.so";

/// Returns the library file: `ORT_DYLIB_PATH` when set, else `.runtime/onnxruntime/libonnxruntime.so` in the current folder
/// or the program's folder or one above them.
///
/// # Errors
/// [`Error::LibraryMissing`] with the places looked at.
pub fn locate() -> Result<PathBuf, Error> {
    if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|value| !value.is_empty()) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        return Err(Error::LibraryMissing {
            looked: format!("ORT_DYLIB_PATH is {}, and no file is there", path.display()),
        });
    }
    let starts = [env::current_dir().ok(), env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf))];
    for start in starts.iter().flatten() {
        for folder in start.ancestors() {
            let path = folder.join(RELATIVE);
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    Err(Error::LibraryMissing {
        looked: format!(
            "ORT_DYLIB_PATH is not set, and there is no {RELATIVE} in the current folder, the program's, or one above them"
        ),
    })
}

/// The process's one environment of ONNX Runtime; the first call loads the library.
///
/// # Errors
/// [`Error::LibraryMissing`] and [`Error::LibraryUnusable`]; a later call tries again.
pub fn environment() -> Result<&'static Environment, Error> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    static LOADING: Mutex<()> = Mutex::new(());
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let path = locate()?;
    // A relative path would be taken relative to the program, not to the current folder.
    let path = path.canonicalize().unwrap_or(path);
    let unusable = |reason: String| Error::LibraryUnusable { path: path.clone(), reason };
    let environment = ort::init_from(&path)
        .map_err(|error| unusable(error.to_string()))?
        .with_name("quintet")
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

/// Version of the loaded library, such as `1.32.0`.
///
/// # Errors
/// Those of [`environment`].
pub fn version() -> Result<String, Error> {
    environment()?;
    let path = locate()?;
    let unusable = |error: libloading::Error| Error::LibraryUnusable { path: path.clone(), reason: error.to_string() };
    // SAFETY: the library is loaded already, so no initializer runs; the symbol has this type in every version of the C API,
    // and the text it leads to is a constant of the library, copied before the handle is dropped.
    unsafe {
        let library = libloading::Library::new(&path).map_err(unusable)?;
        let base = library
            .get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0")
            .map_err(unusable)?();
        if base.is_null() {
            return Ok(String::new());
        }
        Ok(CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned())
    }
}
