//! A plan in words, for who has not read how the kernels work.

use gpu_layer_norm::kernel::{Access, Entry, Kernel, Reduction, Unit};
use gpu_layer_norm::{Plan, Strategy};

/// What a plan does, a sentence or two for each choice that it makes. Nothing for a plan of no rows.
pub(super) fn of(plan: &Plan) -> Vec<String> {
    let Some(chunk) = plan.chunks().first() else { return vec!["There are no rows, so nothing runs.".into()] };
    let kernel = plan.kernels()[chunk.dispatches[0].kernel];
    let mut words = vec![strategy(plan), sharing(plan, &kernel)];
    words.extend(sums(&kernel).map(String::from));
    words.push(access(&kernel).into());
    let several = match plan.chunks().len() {
        1 => String::new(),
        chunks => format!(", once for each of {chunks} parts of the rows,"),
    };
    for (i, dispatch) in chunk.dispatches.iter().enumerate() {
        let kernel = &plan.kernels()[dispatch.kernel];
        let [x, y, z] = dispatch.workgroups;
        let workgroups = u64::from(x) * u64::from(y) * u64::from(z);
        let invocations = kernel.workgroup_size();
        let what = purpose(kernel.entry);
        words.push(format!(
            "Dispatch {}{several} {what}: {} of {}.",
            i + 1,
            counted(workgroups, "workgroup"),
            counted(invocations.into(), "invocation"),
        ));
    }
    words
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn strategy(plan: &Plan) -> String {
    match (plan.strategy(), plan.geometry().access) {
        (Strategy::Resident, _) => {
            "Resident: a row is read once, and held in registers while it is measured and normalized.".into()
        }
        (Strategy::PartlyResident, Access::Partly { registers, shared }) => format!(
            "Partly resident: of a row, each invocation holds {} in registers and {shared} in workgroup memory; the rest is read \
             again.",
            counted(registers.into(), "access"),
        ),
        (Strategy::PartlyResident, _) => "Partly resident: a part of a row is held, the rest is read again.".into(),
        (Strategy::Streaming, _) => {
            "Streaming: a row is read once to measure it, and once more, from cache, to normalize it.".into()
        }
        (Strategy::Split, _) => {
            let width = plan.geometry().segment_width.unwrap_or(plan.problem().width());
            let segments = plan.problem().width().div_ceil(width);
            format!(
                "Split: a row is cut into {} of {width} elements, which are measured apart before the row is normalized.",
                counted(segments.into(), "segment"),
            )
        }
    }
}

fn sharing(plan: &Plan, kernel: &Kernel) -> String {
    let what = if plan.strategy() == Strategy::Split { "segment" } else { "row" };
    let of_a_workgroup = counted(kernel.spans_per_workgroup.into(), what);
    match (kernel.lanes, kernel.spans_per_lane) {
        (1, 1) => format!("Each invocation takes a {what} of its own, {of_a_workgroup} to a workgroup."),
        (1, spans) => format!(
            "Each invocation takes {} at once, so that it reads weight and bias once for all of them; {of_a_workgroup} to a \
             workgroup.",
            counted(spans.into(), what),
        ),
        (lanes, 1) => format!("{lanes} invocations share a {what}; a workgroup has {of_a_workgroup}."),
        (lanes, spans) => {
            format!("{lanes} invocations share {}; a workgroup has {of_a_workgroup}.", counted(spans.into(), what))
        }
    }
}

fn sums(kernel: &Kernel) -> Option<&'static str> {
    match kernel.reduction {
        Reduction::Lane => None,
        Reduction::Subgroup => Some("They add up by shuffles within a subgroup, without a barrier."),
        Reduction::SubgroupThenWorkgroup => Some("They add up by subgroup, and then through workgroup memory."),
        Reduction::Workgroup => Some("They add up through workgroup memory."),
    }
}

fn access(kernel: &Kernel) -> &'static str {
    match kernel.unit {
        Unit::Octet => "An access of memory moves eight elements.",
        Unit::Vector => "An access of memory moves four elements.",
        Unit::Pair => "Elements are read one by one, and written two at a time, because four do not divide the row.",
        Unit::Scalar => "Elements are read and written one by one, because four do not divide the row.",
        Unit::Rows => "An access of memory moves the elements that four neighbouring rows have at one place.",
    }
}

fn purpose(entry: Entry) -> &'static str {
    match entry {
        Entry::Row => "normalizes whole rows",
        Entry::Partial => "measures rows, or segments of them",
        Entry::Merge => "merges what was measured, and normalizes",
        Entry::CausalTiles => "sums up tiles of positions",
        Entry::CausalCarries => "carries the sums from tile to tile",
        Entry::CausalRows => "works out mean and rstd of each position",
        Entry::NormalizeKnown => "normalizes rows whose mean and rstd are known",
        _ => "belongs to the backward pass",
    }
}

#[cfg(test)]
mod tests {
    use gpu_layer_norm::Capabilities;
    use gpu_layer_norm::kernel::Problem;

    use super::*;

    #[test]
    fn every_strategy_has_words_of_its_own() {
        let capabilities = Capabilities::webgpu_baseline();
        for strategy in [Strategy::Resident, Strategy::PartlyResident, Strategy::Streaming, Strategy::Split] {
            let problem = Problem::new(4, 20_000).unwrap();
            let problem = if strategy == Strategy::Resident { Problem::new(4, 64).unwrap() } else { problem };
            let plan = Plan::with_strategy(&problem, &capabilities, strategy).unwrap();
            let words = of(&plan);
            let name = strategy.to_string().replace('-', " ");
            assert!(words[0].to_lowercase().starts_with(&name), "{words:?}");
            let dispatches = words.iter().filter(|sentence| sentence.starts_with("Dispatch")).count();
            assert_eq!(dispatches, plan.chunks()[0].dispatches.len());
        }
    }

    #[test]
    fn no_rows_have_a_plan_too() {
        let plan = Plan::new(&Problem::new(0, 8).unwrap(), &Capabilities::webgpu_baseline()).unwrap();
        assert_eq!(of(&plan), ["There are no rows, so nothing runs."]);
    }
}
