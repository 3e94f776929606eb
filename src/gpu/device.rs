use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use super::pipelines::Pipelines;
use crate::kernel::{AdapterClass, Capabilities, Dialect, Problem, SubgroupSizes, Tunings};
use crate::{Error, StorageType};

/// An adapter's device and queue, with the compiled pipelines that go with them. Clones share all of it; tensors and
/// layers go with the `GpuDevice` that they were made on and its clones.
#[derive(Clone)]
pub struct GpuDevice {
    inner: Arc<Inner>,
}

struct Inner {
    info: wgpu::AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    pipelines: Mutex<Pipelines>,
    // The driver's own, where it has one.
    pipeline_cache: Option<wgpu::PipelineCache>,
    tunings: Mutex<Tunings>,
    shader_checks: bool,
    #[cfg(not(target_arch = "wasm32"))]
    f16: OnceLock<super::f16::F16Conversions>,
    // Why the device was lost, once that is known.
    lost: Arc<OnceLock<String>>,
}

/// What adapter to use. All of it is optional.
///
/// ```no_run
/// use gpu_layer_norm::{GpuDevice, wgpu};
///
/// let device = GpuDevice::builder().backends(wgpu::Backends::VULKAN).adapter_name("llvmpipe").build()?;
/// println!("{}", device.adapter_info().name);
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GpuDeviceBuilder {
    backends: wgpu::Backends,
    adapter_name: Option<String>,
    power_preference: wgpu::PowerPreference,
    pipeline_cache_data: Option<Vec<u8>>,
}

impl GpuDeviceBuilder {
    /// Only adapters of these backends. Default: all that are compiled in.
    #[must_use]
    pub fn backends(self, backends: wgpu::Backends) -> Self {
        Self { backends, ..self }
    }

    /// Only adapters whose name or driver contains this, in any case.
    #[must_use]
    pub fn adapter_name(self, name: impl Into<String>) -> Self {
        Self { adapter_name: Some(name.into()), ..self }
    }

    /// `LowPower` ranks integrated GPUs before discrete ones. Default: discrete, integrated, virtual, processor.
    #[must_use]
    pub fn power_preference(self, power_preference: wgpu::PowerPreference) -> Self {
        Self { power_preference, ..self }
    }

    /// Compiled pipelines of an earlier run, as [`GpuDevice::pipeline_cache_data`] gave them. Those of another adapter or driver
    /// are not used; [`wgpu::util::pipeline_cache_key`] gives a file name that tells them apart.
    ///
    /// # Safety
    /// The data must be what [`GpuDevice::pipeline_cache_data`] returned, unchanged: drivers may trust it.
    #[must_use]
    pub unsafe fn pipeline_cache_data(self, data: impl Into<Vec<u8>>) -> Self {
        Self { pipeline_cache_data: Some(data.into()), ..self }
    }

    /// The adapters that match and can run compute shaders, best first.
    pub async fn adapters(&self) -> Vec<wgpu::Adapter> {
        let mut adapters = self.all_adapters().await;
        adapters.retain(runs_compute);
        if let Some(name) = &self.adapter_name {
            let name = name.to_lowercase();
            adapters.retain(|adapter| {
                let info = adapter.get_info();
                [info.name, info.driver, info.driver_info].iter().any(|text| text.to_lowercase().contains(&name))
            });
        }
        adapters.sort_by_key(|adapter| self.rank(&adapter.get_info()));
        adapters
    }

    /// Makes the device on the best adapter that matches, with all the limits that it offers.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::RequestDevice`], [`Error::DeviceTooSmall`].
    pub async fn build_async(self) -> Result<GpuDevice, Error> {
        let adapters = self.adapters().await;
        let Some(adapter) = adapters.into_iter().next() else {
            // Also those that cannot run compute shaders.
            let found = self.all_adapters().await.iter().map(|adapter| adapter.get_info().name).collect();
            return Err(Error::NoAdapter { requested: self.to_string(), found });
        };
        GpuDevice::request(&adapter, self.pipeline_cache_data.as_deref()).await
    }

    /// As [`build_async`](Self::build_async), waiting for it.
    ///
    /// # Errors
    /// As [`build_async`](Self::build_async).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn build(self) -> Result<GpuDevice, Error> {
        pollster::block_on(self.build_async())
    }

    async fn all_adapters(&self) -> Vec<wgpu::Adapter> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = self.backends;
        descriptor.backend_options.noop.enable = self.backends == wgpu::Backends::NOOP;
        let instance = wgpu::Instance::new(descriptor);
        #[cfg(not(target_arch = "wasm32"))]
        {
            instance.enumerate_adapters(self.backends).await
        }
        // A browser shows one adapter, the one that fits what it is asked for.
        #[cfg(target_arch = "wasm32")]
        {
            let options = wgpu::RequestAdapterOptions { power_preference: self.power_preference, ..Default::default() };
            instance.request_adapter(&options).await.into_iter().collect()
        }
    }

    fn rank(&self, info: &wgpu::AdapterInfo) -> (u8, u8) {
        let low_power = self.power_preference == wgpu::PowerPreference::LowPower;
        let class = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => u8::from(low_power),
            wgpu::DeviceType::IntegratedGpu => u8::from(!low_power),
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (class, u8::from(info.backend == wgpu::Backend::Gl))
    }
}

impl fmt::Display for GpuDeviceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backends {:?}", self.backends)?;
        match &self.adapter_name {
            Some(name) => write!(f, " and a name with \"{name}\""),
            None => Ok(()),
        }
    }
}

impl GpuDevice {
    /// The best adapter there is: discrete before integrated before virtual before processor.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::RequestDevice`], [`Error::DeviceTooSmall`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// As [`new`](Self::new), without blocking; also in a browser.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn new_async() -> Result<Self, Error> {
        Self::builder().build_async().await
    }

    /// Chooses backend, adapter or power preference.
    pub fn builder() -> GpuDeviceBuilder {
        GpuDeviceBuilder {
            backends: wgpu::Backends::all() - wgpu::Backends::NOOP,
            adapter_name: None,
            power_preference: wgpu::PowerPreference::HighPerformance,
            pipeline_cache_data: None,
        }
    }

    /// A new device on this adapter, with all the limits that it offers.
    ///
    /// # Errors
    /// [`Error::RequestDevice`], [`Error::DeviceTooSmall`].
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self, Error> {
        Self::request(adapter, None).await
    }

    async fn request(adapter: &wgpu::Adapter, pipeline_cache_data: Option<&[u8]>) -> Result<Self, Error> {
        let wanted = wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gpu-layer-norm"),
            required_features: adapter.features() & wanted,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::RequestDevice { adapter: adapter.get_info().name, reason: error.to_string() })?;
        let lost = Arc::new(OnceLock::new());
        let told = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| {
            // A second loss tells nothing new.
            let _ = told.set(format!("{reason:?}: {message}"));
        });
        Self::with_lost(adapter, device, queue, lost, pipeline_cache_data)
    }

    /// A caller's own device and queue. Nothing of the caller's is changed: no callback is set, no limit is asked for; plans
    /// keep to the limits and features that the device has.
    ///
    /// # Errors
    /// [`Error::DeviceTooSmall`] if the device cannot run compute shaders with two storage buffers.
    pub fn from_wgpu(adapter: wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Self, Error> {
        Self::with_lost(&adapter, device, queue, Arc::default(), None)
    }

    fn with_lost(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        lost: Arc<OnceLock<String>>,
        pipeline_cache_data: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let info = adapter.get_info();
        let limits = device.limits();
        for (what, needed, actual) in [
            ("storage buffers a shader", 2, limits.max_storage_buffers_per_shader_stage),
            ("uniform buffers a shader", 1, limits.max_uniform_buffers_per_shader_stage),
            ("invocations a workgroup", 1, limits.max_compute_invocations_per_workgroup),
            ("workgroups a dispatch", 1, limits.max_compute_workgroups_per_dimension),
        ] {
            if actual < needed {
                return Err(Error::DeviceTooSmall { what, needed: needed.into(), actual: actual.into() });
            }
        }
        let capabilities = capabilities(&info, device.features(), &limits);
        log::debug!("{} ({:?}): {capabilities:?}", info.name, info.backend);
        let pipeline_cache = device.features().contains(wgpu::Features::PIPELINE_CACHE).then(|| {
            let create = |data| {
                let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
                let descriptor = wgpu::PipelineCacheDescriptor { label: Some("layer norm"), data, fallback: true };
                // Safety: the data, if any, is what `GpuDeviceBuilder::pipeline_cache_data` was promised.
                let cache = unsafe { device.create_pipeline_cache(&descriptor) };
                (cache, ready(scope.pop()))
            };
            match create(pipeline_cache_data) {
                (cache, None) => cache,
                // What is of another adapter is of no use here.
                (_, Some(error)) => {
                    log::warn!("the pipeline cache data is passed over: {error}");
                    create(None).0
                }
            }
        });
        let tunings = Mutex::new(Tunings::new(format_args!(
            "{} {:?} {} {}",
            info.name, info.backend, info.driver, info.driver_info
        )));
        let pipelines = Mutex::default();
        let inner = Inner {
            info,
            device,
            queue,
            capabilities,
            pipelines,
            pipeline_cache,
            tunings,
            shader_checks: false,
            #[cfg(not(target_arch = "wasm32"))]
            f16: OnceLock::new(),
            lost,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same device and queue, on which wgpu's runtime checks of bounds, divisions and loops stay in the kernels. They cost
    /// time and find nothing but a bug of this crate, so they are otherwise left out. Tensors and layers of the one do not go with the
    /// other.
    #[must_use]
    pub fn with_shader_checks(&self) -> Self {
        let Inner { info, device, queue, capabilities, pipeline_cache, lost, .. } = &*self.inner;
        let inner = Inner {
            info: info.clone(),
            device: device.clone(),
            queue: queue.clone(),
            capabilities: *capabilities,
            pipelines: Mutex::default(),
            pipeline_cache: pipeline_cache.clone(),
            tunings: Mutex::new(self.tunings().clone()),
            shader_checks: true,
            #[cfg(not(target_arch = "wasm32"))]
            f16: self.inner.f16.clone(),
            lost: Arc::clone(lost),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Name, backend and driver of the adapter.
    pub fn adapter_info(&self) -> &wgpu::AdapterInfo {
        &self.inner.info
    }

    /// The limits and features of the device, which plans are made for. The exact conversions of f16, which are only found out when they
    /// are needed, count as missing here; [`capabilities_for`](Self::capabilities_for) has them.
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// What plans for this problem are made for. Where the problem has f16, the first such call on a device runs a small kernel
    /// that tries the device's conversions of it, and waits for that; in a browser they are left alone.
    pub fn capabilities_for(&self, problem: &Problem) -> Capabilities {
        let has_f16 = problem.tensors().any(|(_, layout)| layout.storage == StorageType::F16);
        let f16 = if has_f16 { self.f16_conversions() } else { Default::default() };
        Capabilities { exact_unpack_f16: f16.unpack, exact_pack_f16: f16.pack, ..self.inner.capabilities }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn f16_once(&self) -> &OnceLock<super::f16::F16Conversions> {
        &self.inner.f16
    }

    /// The wgpu device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// The pipelines compiled so far in the driver's own form, to be kept in a file and handed to
    /// [`GpuDeviceBuilder::pipeline_cache_data`] in a later run. `None` where wgpu has no such cache: everywhere but on Vulkan, and
    /// on a caller's device without [`wgpu::Features::PIPELINE_CACHE`]. Drivers often keep one themselves.
    pub fn pipeline_cache_data(&self) -> Option<Vec<u8>> {
        self.inner.pipeline_cache.as_ref()?.get_data()
    }

    /// Number of pipelines compiled so far: one for each kernel variant that was needed.
    pub fn pipeline_count(&self) -> usize {
        self.pipelines().len()
    }

    pub(crate) fn pipelines(&self) -> std::sync::MutexGuard<'_, Pipelines> {
        // A panic elsewhere leaves the cache as it was before or after an insertion; both are whole.
        self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tunings(&self) -> std::sync::MutexGuard<'_, Tunings> {
        // As above.
        self.inner.tunings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.inner.pipeline_cache.as_ref()
    }

    pub(crate) fn shader_checks(&self) -> wgpu::ShaderRuntimeChecks {
        if self.inner.shader_checks {
            return wgpu::ShaderRuntimeChecks::checked();
        }
        // Without this one SwiftShader computes wrong results where only some invocations of a subgroup take a second turn of a
        // loop.
        let force_loop_bounding = self.inner.info.name.contains("SwiftShader");
        wgpu::ShaderRuntimeChecks { force_loop_bounding, ..wgpu::ShaderRuntimeChecks::unchecked() }
    }

    pub(crate) fn check_same(&self, other: &Self, what: &'static str) -> Result<(), Error> {
        if Arc::ptr_eq(&self.inner, &other.inner) { Ok(()) } else { Err(Error::ForeignDevice { what }) }
    }

    /// That the device is not lost, as far as wgpu knows.
    pub(crate) fn check_lost(&self) -> Result<(), Error> {
        #[cfg(not(target_arch = "wasm32"))]
        if self.inner.lost.get().is_none() && self.takes_no_work() {
            // The callback of a destroyed device is only called once it is idle, and a caller's own device has none of ours.
            let _ =
                self.inner.lost.set("wgpu takes no more work for it: it was destroyed, or its driver gave up".into());
        }
        self.check_told_lost()
    }

    /// Whether wgpu refuses everything. It keeps silent then, in error scopes too: a mistake that goes without an error tells.
    /// Reaches neither the driver nor the caller's error handler, and does not wait.
    #[cfg(not(target_arch = "wasm32"))]
    fn takes_no_work(&self) -> bool {
        let scope = self.inner.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let _ = self.inner.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Occlusion,
            count: wgpu::QUERY_SET_MAX_QUERIES + 1,
        });
        ready(scope.pop()).is_none()
    }

    /// As `check_lost`, from what is known already.
    fn check_told_lost(&self) -> Result<(), Error> {
        match self.inner.lost.get() {
            Some(message) => Err(Error::DeviceLost { message: message.clone() }),
            None => Ok(()),
        }
    }

    /// Runs `work` with every error that wgpu raises in it caught and returned. `bytes` is what the work allocates.
    ///
    /// Natively the error is known at once. A browser tells later, when the call has returned: the error is then caught all
    /// the same, and only logged by the browser.
    pub(crate) fn scoped<T>(
        &self,
        operation: &'static str,
        bytes: u64,
        work: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T, Error> {
        self.check_told_lost()?;
        let device = &self.inner.device;
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let value = work(device);
        let errors = [ready(internal.pop()), ready(memory.pop()), ready(validation.pop())];
        let error = errors.into_iter().flatten().next();
        // Whatever a lost device was asked for came to nothing, with an error or without.
        self.check_lost()?;
        match error {
            None => Ok(value),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { operation, bytes }),
            Some(error) => Err(Error::Wgpu { operation, message: error.to_string() }),
        }
    }

    pub(crate) fn create_buffer(
        &self,
        label: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, Error> {
        self.create(label, bytes, usage, None::<fn(usize, &mut [u8])>)
    }

    pub(crate) fn create_buffer_with(
        &self,
        label: &'static str,
        usage: wgpu::BufferUsages,
        contents: &[u8],
    ) -> Result<wgpu::Buffer, Error> {
        let fill = |start: usize, target: &mut [u8]| {
            let part = &contents[start.min(contents.len())..];
            let (filled, rest) = target.split_at_mut(part.len().min(target.len()));
            filled.copy_from_slice(&part[..filled.len()]);
            rest.fill(0);
        };
        self.create(label, contents.len() as u64, usage, Some(fill))
    }

    /// Overwrites the beginning of a buffer, for everything submitted afterwards, in pieces: `fill` is told the byte at which one
    /// begins, and where it goes. `bytes` is a multiple of 4. The host holds no copy.
    pub(crate) fn write(
        &self,
        operation: &'static str,
        target: &wgpu::Buffer,
        bytes: u64,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Error> {
        // Where wgpu has no memory for a staging buffer of its own, it gives the whole device up; with one of ours, it says so.
        const SMALL: u64 = 1 << 20;
        let Some(size) = wgpu::BufferSize::new(bytes) else { return Ok(()) };
        if bytes <= SMALL {
            return self.scoped(operation, bytes, |_| {
                // `None` where the write is refused, which the scope reports.
                if let Some(mut view) = self.queue().write_buffer_with(target, 0, size) {
                    in_pieces(bytes as usize, |part, piece| {
                        fill(part.start, piece);
                        view.slice(part).copy_from_slice(piece);
                    });
                }
            });
        }
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let staging = self.create(operation, bytes, usage, Some(fill))?;
        self.scoped(operation, bytes, |device| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(operation) });
            encoder.copy_buffer_to_buffer(&staging, 0, target, 0, bytes);
            self.queue().submit([encoder.finish()]);
        })
    }

    fn create(
        &self,
        label: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        fill: Option<impl FnMut(usize, &mut [u8])>,
    ) -> Result<wgpu::Buffer, Error> {
        let max = self.inner.capabilities.max_buffer_bytes;
        if bytes > max {
            return Err(Error::BufferSize { bytes, max });
        }
        // An empty tensor has a buffer too, though none of it is ever used.
        let size = bytes.next_multiple_of(4).max(4);
        self.scoped(label, size, |device| {
            let descriptor =
                wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: fill.is_some() };
            let buffer = device.create_buffer(&descriptor);
            if let Some(mut fill) = fill {
                // This fails if the buffer could not be made, which the scope reports.
                if let Ok(mut view) = buffer.get_mapped_range_mut(..) {
                    in_pieces(size as usize, |part, piece| {
                        fill(part.start, piece);
                        view.slice(part).copy_from_slice(piece);
                    });
                }
                buffer.unmap();
            }
            buffer
        })
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<(), Error> {
        // wgpu panics where a device is lost while it is waited for; that must not end the caller.
        let device = &self.inner.device;
        let poll = || device.poll(wgpu::PollType::wait_indefinitely());
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll));
        self.check_lost()?;
        match polled {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::DeviceLost { message: error.to_string() }),
            Err(_) => Err(Error::DeviceLost { message: "wgpu gave up waiting".into() }),
        }
    }
}

impl fmt::Debug for GpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuDevice").field("adapter", &self.inner.info.name).finish_non_exhaustive()
    }
}

/// Whether kernels can run on an adapter. wgpu counts OpenGL below 4.2 in where it has the extension for compute shaders (NVIDIA's
/// through EGL is one, 3.3), but writes them for version 4.2 on.
fn runs_compute(adapter: &wgpu::Adapter) -> bool {
    let info = adapter.get_info();
    let flags = adapter.get_downlevel_capabilities().flags;
    flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        && (info.backend != wgpu::Backend::Gl || gl_version(&info.driver_info).is_none_or(|version| version >= (4, 2)))
}

/// Hands out `bytes`, a multiple of 4, in pieces of a small array, aligned to 4 bytes.
fn in_pieces(bytes: usize, mut each: impl FnMut(std::ops::Range<usize>, &mut [u8])) {
    let mut words = [0_u32; 4096];
    let piece: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    for start in (0..bytes).step_by(piece.len()) {
        let end = bytes.min(start + piece.len());
        each(start..end, &mut piece[..end - start]);
    }
}

/// The version of desktop OpenGL that a driver tells; `OpenGL ES 3.2 Mesa` has none.
fn gl_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split([' ', '.']).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// The value of a future that is ready at once; `None` if it is not.
fn ready<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => None,
    }
}

fn capabilities(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Capabilities {
    let subgroups = SubgroupSizes { min: info.subgroup_min_size, max: info.subgroup_max_size };
    Capabilities {
        class: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterClass::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterClass::Integrated,
            wgpu::DeviceType::Cpu => AdapterClass::Cpu,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => AdapterClass::Other,
        },
        cores: cores(),
        exact_unpack_f16: false,
        exact_pack_f16: false,
        subgroups: (subgroups.is_usable() && features.contains(wgpu::Features::SUBGROUP)).then_some(subgroups),
        dialect: if info.backend == wgpu::Backend::BrowserWebGpu { Dialect::Browser } else { Dialect::Naga },
        max_invocations_per_workgroup: limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x),
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        max_workgroup_storage: limits.max_compute_workgroup_storage_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        storage_offset_alignment: limits.min_storage_buffer_offset_alignment,
    }
}

/// Processor cores, 1 where that is not known.
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown", feature = "webgpu")))]
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// The cores that the browser tells of, 1 where it tells of none. The standard library knows of none there.
#[cfg(all(target_arch = "wasm32", target_os = "unknown", feature = "webgpu"))]
fn cores() -> u32 {
    let get = |object: &js_sys::wasm_bindgen::JsValue, name: &str| js_sys::Reflect::get(object, &name.into());
    // A window and a worker both have a `navigator`.
    let cores = get(&js_sys::global(), "navigator").and_then(|navigator| get(&navigator, "hardwareConcurrency"));
    cores.ok().and_then(|cores| cores.as_f64()).map_or(1, |cores| cores.max(1.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::gl_version;

    #[test]
    fn desktop_gl_tells_its_version_and_gl_es_none() {
        assert_eq!(gl_version("3.3.0 NVIDIA 580.159.04"), Some((3, 3)));
        assert_eq!(gl_version("4.5 (Core Profile) Mesa 22.3.6"), Some((4, 5)));
        assert_eq!(gl_version("OpenGL ES 3.2 Mesa 22.3.6"), None);
        assert_eq!(gl_version(""), None);
    }
}
