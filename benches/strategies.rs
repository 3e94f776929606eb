//! Every candidate of the planner at every width, beside a copy of the same bytes: where the planner's pick stands against
//! the best. Each result is compared with the f64 reference before it is timed.
//!
//!     cargo bench --bench strategies -- --help

mod measure;

use measure::Case;
use measure::report::run;
use serde_json::json;

fn main() {
    let mut worst = 1.0_f64;
    run(
        false,
        true,
        || {},
        |bench, times| {
            let Case { operation, storage, rows, width } = bench.case;
            let copy = times.copy;
            let best = times.plans.iter().min().copied().unwrap_or_default();
            let off = times.plans[0].as_secs_f64() / best.as_secs_f64().max(1e-9);
            worst = worst.max(off);
            println!(
                "\n{operation} {storage} {rows} × {width}: the pick is {off:.2} times the best; ratio to copy, candidate"
            );
            let mut candidates: Vec<_> = bench
                .plans
                .iter()
                .zip(&times.plans)
                .map(|(plan, time)| {
                    let ratio = time.as_secs_f64() / copy.as_secs_f64().max(1e-9);
                    (ratio, plan.plan().strategy().to_string(), plan.plan().geometry().to_string())
                })
                .collect();
            let pick = candidates[0].2.clone();
            candidates.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (ratio, strategy, geometry) in &candidates {
                let mark = if *geometry == pick { "  ← pick" } else { "" };
                println!("  {ratio:>6.2}  {strategy:<9} {geometry}{mark}");
            }
            json!({
                "operation": operation.to_string(),
                "storage": storage.to_string(),
                "rows": rows,
                "width": width,
                "copy_milliseconds": copy.as_secs_f64() * 1e3,
                "pick": pick,
                "pick_to_best": off,
                "largest_error": bench.largest_error,
                "candidates": candidates
                    .iter()
                    .map(|(ratio, strategy, geometry)| {
                        json!({ "ratio_to_copy": ratio, "strategy": strategy, "geometry": geometry })
                    })
                    .collect::<Vec<_>>(),
            })
        },
    );
    println!("\nthe pick is {worst:.2} times the best at most");
}
