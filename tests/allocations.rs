//! What recording allocates. A binary of its own, because it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gpu_layer_norm::{
    Bindings, Error, GpuDevice, GpuLayerNorm, GpuTensor, LayerNormConfig, PreparedPlan, StorageType, Strategy, Tensor,
    wgpu,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Counts the allocations of each thread, and has no memory for those above `LARGEST` bytes.
struct Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        if layout.size() > LARGEST.get() {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        if size > LARGEST.get() {
            return std::ptr::null_mut();
        }
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while this records into a new pass.
fn allocations(device: &GpuDevice, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> usize {
    let mut encoder = device.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    let before = ALLOCATIONS.get();
    record(&mut pass);
    ALLOCATIONS.get() - before
}

/// A pipeline and a bind group that have nothing to do with this crate.
fn bare(device: &wgpu::Device) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(
            "@group(0) @binding(0) var<storage, read_write> a: array<u32>; @compute @workgroup_size(1) fn main() { a[0] = 1u; }"
                .into(),
        ),
    });
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &[wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: false },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        }],
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout,
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    (pipeline, bind_group)
}

#[test]
fn encode_pass_allocates_what_the_same_bare_wgpu_calls_do_and_nothing_else() {
    let device = GpuDevice::builder().backends(wgpu::Backends::NOOP).build().expect("a device");
    // As many as the longest plan has kernels: wgpu leaves out what is set already.
    let bare = [(); 2].map(|()| bare(device.device()));
    let prepare = |strategy: Strategy| -> (PreparedPlan, usize) {
        let config = LayerNormConfig::new(4096).strategy(strategy);
        let layer = GpuLayerNorm::new(&device, &config).expect("a layer");
        let input = GpuTensor::zeros(&device, [8, 4096]).expect("a tensor");
        let output = GpuTensor::zeros(&device, [8, 4096]).expect("a tensor");
        let prepared = layer.prepare(&device, &Bindings::of(&input, &output)).expect("an operation");
        let dispatches = prepared.plan().chunks().iter().map(|chunk| chunk.dispatches.len()).sum();
        (prepared, dispatches)
    };
    for strategy in [Strategy::Streaming, Strategy::Split] {
        let (prepared, dispatches) = prepare(strategy);
        for times in [1, 100] {
            // Whatever is set up once is set up by the first round.
            let [_, own] =
                [(); 2].map(|()| allocations(&device, |pass| (0..times).for_each(|_| prepared.encode_pass(pass))));
            let [_, wgpus] = [(); 2].map(|()| {
                allocations(&device, |pass| {
                    for (pipeline, bind_group) in (0..times).flat_map(|_| &bare[..dispatches]) {
                        pass.set_pipeline(pipeline);
                        pass.set_bind_group(0, bind_group, &[]);
                        pass.dispatch_workgroups(1, 1, 1);
                    }
                })
            });
            assert_eq!(own, wgpus, "{strategy}, {times} times {dispatches} dispatches");
        }
    }
    // The counter counts.
    assert_eq!(allocations(&device, |_| drop(std::hint::black_box(Box::new(1)))), 1);
}

/// What `work` makes of a host that has no memory for an allocation above so many bytes.
fn with_at_most<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    LARGEST.set(bytes);
    let result = work();
    LARGEST.set(usize::MAX);
    result
}

#[test]
fn no_copy_of_a_tensor_is_made_on_the_host_and_where_one_is_asked_for_and_cannot_be_had_it_is_an_error() {
    // A driver's memory is none of the host's allocator, unlike that of the backend without one.
    let Ok(device) = GpuDevice::new() else {
        return println!("no adapter");
    };
    const WIDTH: usize = (1 << 21) + 1;
    const MOST: usize = 1 << 20;
    let values = |storage| Tensor::from_f32([WIDTH], vec![1.5; WIDTH]).expect("a tensor").to_storage(storage);
    for storage in StorageType::ALL {
        let config = LayerNormConfig::new(WIDTH).expect_nothing().parameter_storage(storage);
        let layer = with_at_most(MOST, || GpuLayerNorm::new(&device, &config)).expect("a layer");
        let weight = layer.weight().expect("a weight");
        assert!(weight.download().expect("the weight").values().iter().all(|&value| value == 1.0), "{storage}");
        for given in StorageType::ALL {
            let given = values(given);
            with_at_most(MOST, || layer.set_weight(&given)).expect("another weight");
            let uploaded = with_at_most(MOST, || GpuTensor::upload(&device, &given)).expect("an upload");
            assert_eq!(weight.download().expect("the weight"), values(storage));
            assert_eq!(uploaded.download().expect("the values"), given);
        }
        let download = with_at_most(MOST, || weight.download());
        let expected = WIDTH as u64 * storage.bytes();
        assert!(matches!(download, Err(Error::OutOfMemory { bytes, .. }) if bytes == expected), "{download:?}");
    }
}
