//! Where tensors live, in which numbers, and how threads wait.
use std::{ffi::c_int, path::Path, sync::OnceLock};

use libloading::Library;
use tch::{Cuda, Device, Kind, Tensor};

use crate::{Error, hyper::Precision, request::DeviceChoice};

/// Starts the program anew with passive OpenMP waiting, unless the environment chooses a policy already. The OpenMP library reads
/// its settings when it is loaded, before `main`: setting a variable here would be too late.
#[cfg(unix)]
pub fn wait_passively() -> std::io::Result<()> {
    use std::os::unix::process::CommandExt as _;
    if std::env::var_os("OMP_WAIT_POLICY").is_some() || std::env::var_os("GOMP_SPINCOUNT").is_some() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg0(name).args(arguments).env("OMP_WAIT_POLICY", "PASSIVE").env("GOMP_SPINCOUNT", "0");
    Err(command.exec())
}

/// The device asked for: `Auto` takes the first GPU when libtorch sees one, else the CPU.
pub(crate) fn choose(choice: DeviceChoice) -> Result<Device, Error> {
    if choice == DeviceChoice::Cpu {
        return Ok(Device::Cpu);
    }
    match (gpus() > 0, choice) {
        (true, _) => Ok(Device::Cuda(0)),
        (false, DeviceChoice::Cuda) => Err(Error::field(
            "device",
            "found `cuda`, but libtorch sees no GPU: it was set up without CUDA, or there is none",
        )),
        (false, _) => Ok(Device::Cpu),
    }
}

/// The numbers to compute in on a device. `Auto` takes bf16 on a GPU alone: what it saves on a processor depends on the processor, and
/// fp32 makes the trainings of different machines comparable.
pub(crate) fn precision(asked: Precision, device: Device) -> Result<Kind, Error> {
    match (asked, device) {
        (Precision::Auto, Device::Cuda(_)) => Ok(Kind::BFloat16),
        (Precision::Fp32 | Precision::Auto, _) => Ok(Kind::Float),
        (Precision::Bf16, Device::Cpu) if !processor_has_bf16() => Err(Error::field(
            "hyperparameters.precision",
            "found `bf16`, but this processor has no instructions for it; use `fp32` or `auto`",
        )),
        (Precision::Bf16, _) => Ok(Kind::BFloat16),
        (Precision::Fp16, Device::Cpu) if !libtorch_multiplies_fp16() => Err(Error::field(
            "hyperparameters.precision",
            "found `fp16`, but libtorch does not multiply it on this processor; use `fp32` or `auto`",
        )),
        (Precision::Fp16, _) => Ok(Kind::Half),
    }
}

/// Whether the processor multiplies bf16 numbers; emulated, they would be slower than fp32.
pub fn processor_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// Whether libtorch has fp16 products for the processor at all; where it has no instructions for them they are slow.
fn libtorch_multiplies_fp16() -> bool {
    let ones = Tensor::f_ones([2, 2], (Kind::Half, Device::Cpu));
    ones.is_ok_and(|ones| ones.f_matmul(&ones).is_ok())
}

/// GPUs that libtorch sees.
pub fn gpus() -> usize {
    let _ = cuda_library();
    usize::try_from(Cuda::device_count()).unwrap_or(0)
}

/// The devices that share the rows of each step with the first one. `asked` counts all of them; 0 means all GPUs that can be seen, or
/// the processor alone.
pub(crate) fn beside(first: Device, asked: usize) -> Result<Vec<Device>, Error> {
    let Device::Cuda(_) = first else { return Ok(vec![first; asked.saturating_sub(1)]) };
    let seen = gpus();
    if asked > seen {
        return Err(Error::field("devices", format!("found {asked}, but libtorch sees {seen} GPUs")));
    }
    let count = if asked == 0 { seen } else { asked };
    Ok((1..count).map(Device::Cuda).collect())
}

/// Makes a GPU the current one of this thread: libtorch seeds the generator of the current GPU.
pub(crate) fn enter(device: Device) -> Result<(), Error> {
    let Device::Cuda(index) = device else { return Ok(()) };
    let library = cuda_library().ok_or(Error::Internal("libtorch's library for GPUs is not loaded"))?;
    // SAFETY: this is the signature of `cudaSetDevice` of the CUDA runtime, which libtorch's library depends on, and which is found among
    // its dependencies.
    let entered = unsafe {
        let set_device = library.get::<unsafe extern "C" fn(c_int) -> c_int>(c"cudaSetDevice");
        let set_device = set_device.map_err(|_| Error::Internal("the CUDA runtime has no `cudaSetDevice`"))?;
        set_device(c_int::try_from(index).unwrap_or(c_int::MAX))
    };
    if entered == 0 { Ok(()) } else { Err(Error::Internal("a GPU cannot be used by another thread")) }
}

/// libtorch's library for GPUs. The linker drops it, since nothing refers to it by name: it registers itself when it is loaded.
fn cuda_library() -> Option<&'static Library> {
    static LOADED: OnceLock<Option<Library>> = OnceLock::new();
    let load = || {
        let beside = std::env::var_os("LIBTORCH").map(|root| Path::new(&root).join("lib/libtorch_cuda.so"));
        let by_name = Path::new("libtorch_cuda.so").to_owned();
        // SAFETY: the library belongs to the libtorch this program is linked with; its initializers register kernels.
        beside.into_iter().chain([by_name]).find_map(|path| unsafe { Library::new(path) }.ok())
    };
    LOADED.get_or_init(load).as_ref()
}

/// The name used in reports.
pub(crate) fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}
