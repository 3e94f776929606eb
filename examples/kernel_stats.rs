//! What Mesa's compilers make of the kernels: registers, spills, code size. No GPU is needed, but Linux and Mesa's drivers (on Debian
//! the package `mesa-vulkan-drivers`). RADV (AMD) works alone, ANV (Intel) and NVK (NVIDIA, from Mesa 24 on) with what
//! `scripts/drm-shims` builds.
//!
//!     cargo run --release --example kernel_stats -- --help
//!     cargo run --release --example kernel_stats -- --shims target/drm-shims --chips anv:tgl,nvk:172

#[cfg(target_os = "linux")]
#[path = "../tests/common/mesa.rs"]
mod mesa;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("Mesa's drivers are for Linux; there are no statistics on other systems");
        std::process::exit(1);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;
    use std::path::PathBuf;
    use std::process::exit;

    use gpu_layer_norm::kernel::{Kernel, Plan};
    use gpu_layer_norm::{Error, StorageType};

    use crate::mesa::{self, CHIPS, Driver, Mesa, Operation, Told};

    const WIDTHS: [u64; 20] = [
        64, 128, 256, 512, 768, 1000, 1001, 1024, 2048, 3072, 4096, 5120, 8192, 16_384, 32_768, 50_257, 65_536,
        131_072, 262_144, 1_048_576,
    ];

    fn usage() -> String {
        let operations = Operation::ALL.map(|operation| operation.to_string());
        format!(
            "  --chips A,B,…         chips: AMD's by RADV's names, vega10,navi21,vangogh,gfx1100 (newer Mesa has navi31 for the
                        last, and gfx1201); Intel's by ANV's, anv:skl, anv:tgl, anv:dg2, anv:lnl, …; NVIDIA's by
                        the number that nouveau has for them, nvk:162 (Turing) or nvk:172 (Ampere)
  --shims FOLDER        what scripts/drm-shims has built, for chips that are not AMD's
  --widths A,B,…        only these widths
  --storage A,B,…       of f32, f16, bf16
  --operations A,B,…    of {}
  --log2-elements N     as many rows as make tensors of 2^N elements; 28
  --rows N              so many rows at every width
  --candidates          every candidate of the planner, its pick first",
            operations.join(", ")
        )
    }

    struct Options {
        chips: Vec<String>,
        shims: Option<PathBuf>,
        widths: Vec<u64>,
        storage: Vec<StorageType>,
        operations: Vec<Operation>,
        log2_elements: u32,
        rows: Option<u64>,
        candidates: bool,
    }

    impl Options {
        fn parse(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
            use lexopt::prelude::*;
            let mut options = Self {
                chips: CHIPS.map(String::from).to_vec(),
                shims: None,
                widths: WIDTHS.to_vec(),
                storage: StorageType::ALL.to_vec(),
                operations: Operation::ALL.to_vec(),
                log2_elements: 28,
                rows: None,
                candidates: false,
            };
            while let Some(argument) = parser.next()? {
                match argument {
                    Long("chips") => options.chips = parser.value()?.string()?.split(',').map(String::from).collect(),
                    Long("shims") => options.shims = Some(PathBuf::from(parser.value()?)),
                    Long("widths") => {
                        let list = parser.value()?.string()?;
                        let widths: Result<Vec<u64>, _> = list.split(',').map(str::parse).collect();
                        options.widths = widths.map_err(|error| format!("--widths {list}: {error}"))?;
                    }
                    Long("storage") => options.storage = named(&parser.value()?.string()?, &StorageType::ALL)?,
                    Long("operations") => options.operations = named(&parser.value()?.string()?, &Operation::ALL)?,
                    Long("log2-elements") => options.log2_elements = parser.value()?.parse::<u32>()?.min(40),
                    Long("rows") => options.rows = Some(parser.value()?.parse()?),
                    Long("candidates") => options.candidates = true,
                    Long("help") => {
                        println!("{}", usage());
                        exit(0);
                    }
                    _ => return Err(argument.unexpected()),
                }
            }
            Ok(options)
        }
    }

    fn named<T: Copy + std::fmt::Display>(list: &str, all: &[T]) -> Result<Vec<T>, lexopt::Error> {
        let find = |name: &str| all.iter().find(|item| item.to_string() == name).copied();
        list.split(',').map(|name| find(name).ok_or_else(|| format!("there is no {name}").into())).collect()
    }

    pub fn main() {
        let options = Options::parse(lexopt::Parser::from_env()).unwrap_or_else(|error| {
            eprintln!("{error}\n\n{}", usage());
            exit(2);
        });
        let done = match mesa::chip() {
            Some(chip) => report(&chip, &options),
            None => options.chips.iter().try_for_each(|chip| rerun(chip, &options)),
        };
        if let Err(error) = done {
            eprintln!("{error}");
            exit(1);
        }
    }

    /// The same for one chip, in a process of its own.
    fn rerun(chip: &str, options: &Options) -> Result<(), String> {
        let status = mesa::rerun_for(chip, options.shims.as_deref())?.args(std::env::args_os().skip(1)).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{chip}: {status}")),
            Err(error) => Err(format!("{chip}: {error}")),
        }
    }

    fn report(chip: &str, options: &Options) -> Result<(), String> {
        let Some(mesa) = Mesa::open(chip)? else {
            return Err(format!("no driver has the chip {chip}; on Debian they are in mesa-vulkan-drivers"));
        };
        let (driver, _) = Driver::of(chip);
        let capabilities = mesa.capabilities();
        println!("{chip}: {}, {:?}, subgroups {:?}", mesa.name(), capabilities.class, capabilities.subgroups);
        let columns: String = driver.statistics().iter().map(|(_, short)| format!(" {short:>7}")).collect();
        println!(
            "{:<8} {:<18} {:<4} {:>8} {:<9} {:<40} {:<21}{columns} {:>4}",
            "chip", "operation", "", "width", "strategy", "geometry", "kernel", "size"
        );
        // Plans of one problem, and of others, share kernels.
        let mut known = HashMap::new();
        for &storage in &options.storage {
            for &operation in &options.operations {
                for &width in &options.widths {
                    let rows = options.rows.unwrap_or((1 << options.log2_elements) / width.max(1)).max(1);
                    let plans =
                        plans(operation, storage, rows, width, &mesa, options.candidates).unwrap_or_else(|error| {
                            // Images have 256 rows at least, which may be more than a buffer holds.
                            println!(
                                "{chip:<8} {operation:<18} {storage:<4} {width:>8} no plan for {rows} rows: {error}"
                            );
                            Vec::new()
                        });
                    for plan in plans {
                        for kernel in plan.kernels() {
                            let told = told(&mut known, &mesa, kernel)?;
                            print(chip, operation, storage, &plan, kernel, told)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn plans(
        operation: Operation,
        storage: StorageType,
        rows: u64,
        width: u64,
        mesa: &Mesa,
        candidates: bool,
    ) -> Result<Vec<Plan>, Error> {
        let problem = operation.problem(storage, rows, width)?;
        if candidates {
            Plan::candidates(&problem, mesa.capabilities())
        } else {
            Ok(vec![Plan::new(&problem, mesa.capabilities())?])
        }
    }

    fn told<'a>(known: &'a mut HashMap<Kernel, Told>, mesa: &Mesa, kernel: &Kernel) -> Result<&'a Told, String> {
        match known.entry(*kernel) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(mesa.kernel_told(kernel)?)),
        }
    }

    fn print(
        chip: &str,
        operation: Operation,
        storage: StorageType,
        plan: &Plan,
        kernel: &Kernel,
        told: &Told,
    ) -> Result<(), String> {
        let (driver, _) = Driver::of(chip);
        let values: Result<Vec<_>, _> = driver.statistics().iter().map(|(name, _)| told.value(name)).collect();
        let values: String = values?.iter().map(|value| format!(" {value:>7}")).collect();
        let (strategy, geometry) = (plan.strategy().to_string(), plan.geometry().to_string());
        let (storage, entry) = (storage.to_string(), format!("{:?}", kernel.entry));
        println!(
            "{chip:<8} {operation:<18} {storage:<4} {:>8} {strategy:<9} {geometry:<40} {entry:<21}{values} {:>4}",
            kernel.width, told.subgroup_size,
        );
        Ok(())
    }
}
