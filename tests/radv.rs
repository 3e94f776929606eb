//! What Mesa's compiler for AMD GPUs makes of the planner's picks: no spills, no scratch, little code, enough waves. No GPU.
//!
//! RADV takes the chip from the environment of its process, so each test runs this program again for its chip.
#![cfg(target_os = "linux")]

#[path = "common/mesa.rs"]
mod mesa;

use gpu_layer_norm::StorageType;
use gpu_layer_norm::kernel::{Kernel, Plan, Strategy};
use mesa::{Mesa, Operation, Statistics};

const WIDTHS: [u64; 14] = [64, 128, 256, 512, 768, 1001, 1024, 2048, 4096, 8192, 16_384, 32_768, 50_257, 65_536];
const ELEMENTS: u64 = 1 << 28;

/// A row that is partly held is gone over in two places, what is in registers and what is not, and elements of 16 bits take as many
/// instructions to round and to pack as all else.
fn most_code_bytes(operation: Operation, strategy: Strategy, storage: StorageType, width: u64) -> u64 {
    match (strategy, storage) {
        // Channels lie apart, so each has its own address; what counts is that there are registers for all of it.
        _ if operation.is_channels_first() => u64::MAX,
        // It measures the rows too.
        _ if operation == Operation::CausalBackward => 15_360,
        _ if operation.is_backward() => {
            if width % 2 == 1 {
                8192
            } else {
                4608
            }
        }
        // A condition's scale and shift are addressed and read beside weight and bias.
        _ if operation == Operation::Modulated => {
            most_code_bytes(Operation::Residual, strategy, storage, width) * 10 / 9
        }
        // Each channel's weight and bias have their own address.
        _ if operation == Operation::GroupNorm => most_code_bytes(Operation::Plain, strategy, storage, width) * 10 / 9,
        // Two tensors are written by twos of elements, of which each is rounded by itself.
        (Strategy::Resident, StorageType::Bf16) if operation == Operation::Residual && width % 2 == 1 => 8256,
        (Strategy::Resident, _) | (_, StorageType::F32) => 8192,
        (_, StorageType::F16) => 10_880,
        (_, StorageType::Bf16) => 11_776,
    }
}

macro_rules! chips {
    ($($name:ident: $chip:literal, $least_waves:literal;)+) => {
        $(
            #[test]
            fn $name() {
                in_a_process_for($chip, stringify!($name), || examine($chip, $least_waves));
            }
        )+
    };
}

// RADV counts a subgroup of 64 on RDNA as two: 8 are 4 of 64, which leave 128 registers each on navi21. On vega10 they count as
// one: 4 leave 64. Newer Mesa calls gfx1100 navi31, and knows gfx1201, an RDNA 4 chip.
chips! {
    vega10: "vega10", 4;
    navi21: "navi21", 8;
    vangogh: "vangogh", 8;
    gfx1100: "gfx1100", 8;
    navi31: "navi31", 8;
    gfx1201: "gfx1201", 8;
}

/// The Mesa by which the bytes of code were measured. Other versions make somewhat more or less code of the same kernels, and RDNA 4, which
/// this one does not know, has longer instructions: there half as much again is let pass.
const MEASURED: (u32, u32) = (22, 3);

/// SIMD units that a workgroup lies on: those of a compute unit, or on RDNA of two.
const UNITS: u64 = 4;

/// The waves that a SIMD unit can hold, of workgroups that are there as a whole: a workgroup of 512 is two waves of 64 on each unit, so where
/// registers are enough for three, one of the three has no workgroup.
fn waves_of_whole_workgroups(statistics: &Statistics, kernel: &Kernel, is_rdna: bool) -> u64 {
    let counted = if is_rdna && statistics.subgroup_size == 64 { 2 } else { 1 };
    let subgroups = kernel.workgroup_size().div_ceil(statistics.subgroup_size);
    let of_workgroup = u64::from(subgroups).div_ceil(UNITS) * counted;
    statistics.waves / of_workgroup * of_workgroup
}

/// Runs a test in a process for its chip: this one if it is, else this program again, with this test alone.
fn in_a_process_for(chip: &str, test: &str, examine: impl FnOnce()) {
    if mesa::chip().as_deref() == Some(chip) {
        return examine();
    }
    let mut command = mesa::rerun_for(chip, None).expect("this program");
    let output = command.args(["--exact", test, "--nocapture"]).output().expect("this program runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if errors.contains("Unknown family") {
        println!("this Mesa has no chip {chip}");
        return;
    }
    println!("{told}");
    assert!(output.status.success(), "{chip}, {}:\n{errors}", output.status);
    assert!(told.contains("1 passed"), "{chip}: there was no test {test} to run");
}

fn examine(chip: &str, least_waves: u64) {
    let Some(radv) = Mesa::open(chip).expect("a device") else {
        println!("RADV is not installed, {chip} is not looked at");
        return;
    };
    let mut violations = Vec::new();
    let mut kernels = 0;
    for operation in Operation::ALL {
        for storage in StorageType::ALL {
            for width in WIDTHS.into_iter().filter(|width| !operation.is_channels_first() || *width == 768) {
                let problem = operation.problem(storage, ELEMENTS / width, width).expect("a problem");
                let plan = Plan::new(&problem, radv.capabilities()).expect("a plan");
                for kernel in plan.kernels() {
                    kernels += 1;
                    let statistics = radv.kernel_statistics(kernel).expect("statistics");
                    let whole = plan.strategy() == Strategy::Resident;
                    let most = most_code_bytes(operation, plan.strategy(), storage, width);
                    let most = if radv.mesa() == MEASURED { most } else { most.saturating_mul(3) / 2 };
                    // On vega10 a few registers too many cost the fourth, and parameters of channels two.
                    let least_waves = match least_waves {
                        _ if operation.is_channels_first() => 1,
                        // A workgroup of 512, of which two do not fit beside each other.
                        4 if operation.is_backward() && whole && width == 4096 => 2,
                        4 if operation.is_backward() => 3,
                        4 if operation == Operation::GroupNorm && storage == StorageType::F32 => 2,
                        // Eight elements of input and residual at once.
                        4 if !whole
                            && storage != StorageType::F32
                            && matches!(operation, Operation::Residual | Operation::Modulated) =>
                        {
                            3
                        }
                        other => other,
                    };
                    let waves = waves_of_whole_workgroups(&statistics, kernel, chip != "vega10");
                    let wrong = wrong(&Statistics { waves, ..statistics }, least_waves, most);
                    if !wrong.is_empty() {
                        violations.push(describe(operation, storage, kernel, &plan, &wrong));
                    }
                }
            }
        }
    }
    println!("{chip}: {kernels} kernels");
    assert!(
        violations.is_empty(),
        "{} of {kernels} kernels on {chip}:\n  {}",
        violations.len(),
        violations.join("\n  ")
    );
}

fn wrong(statistics: &Statistics, least_waves: u64, most_code_bytes: u64) -> Vec<String> {
    let &Statistics { vgprs, spilled_vgprs, spilled_sgprs, scratch_bytes, code_bytes, waves, .. } = statistics;
    let mut wrong = Vec::new();
    if scratch_bytes > 0 {
        wrong.push(format!("{scratch_bytes} bytes of scratch"));
    }
    if spilled_vgprs + spilled_sgprs > 0 {
        wrong.push(format!("{spilled_vgprs} vector and {spilled_sgprs} scalar registers spilled"));
    }
    if code_bytes > most_code_bytes {
        wrong.push(format!("{code_bytes} bytes of code"));
    }
    if waves < least_waves {
        wrong.push(format!("{waves} waves by {vgprs} registers"));
    }
    wrong
}

fn describe(operation: Operation, storage: StorageType, kernel: &Kernel, plan: &Plan, wrong: &[String]) -> String {
    let (width, entry, geometry) = (kernel.width, kernel.entry, plan.geometry());
    format!("{operation} {storage} {width}, {geometry}, {entry:?}: {}", wrong.join(", "))
}
