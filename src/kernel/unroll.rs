//! Writes loops of known length out, one turn after the other.
//!
//! An array that is indexed by a loop's counter lies in memory, unless the loop is unrolled: then every index is a constant, and the
//! array is registers. Compilers differ in which loops they unroll. That of Mesa's NVK, for one, leaves many of them as they are, even
//! one of a single turn. So the loops over registers are written out before any compiler for a GPU sees them. Those for processors get
//! loops: there all of this is memory, and SwiftShader needs gigabytes for what is written out.

/// Loops of more turns than this stay loops. The planner's picks for GPUs have no longer ones over registers.
pub(super) const MOST_TURNS: u32 = 32;

/// A line of WGSL that begins a loop from 0 to a constant.
struct Loop<'a> {
    indent: &'a str,
    counter: &'a str,
    turns: std::iter::StepBy<std::ops::Range<u32>>,
}

impl<'a> Loop<'a> {
    /// The loop that this line begins, if it is to be written out: it is marked so, and not longer than [`MOST_TURNS`], or it has a
    /// single turn.
    fn of(line: &'a str, constant: &impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let text = line.trim_start();
        let (header, mark) = text.strip_prefix("for (var ")?.split_once(") {")?;
        let mut parts = header.split("; ");
        let (counter, start) = parts.next()?.split_once(" = ")?;
        let limit = constant(parts.next()?.strip_prefix(counter)?.strip_prefix(" < ")?)?;
        let step = match parts.next()?.strip_prefix(counter)? {
            "++" => 1,
            step => constant(step.strip_prefix(" += ")?)?,
        };
        let count = limit.div_ceil(step);
        let most = if mark.trim() == MARK { MOST_TURNS } else { 1 };
        let turns = (0..limit).step_by(step as usize);
        let indent = &line[..line.len() - text.len()];
        (start == "0u" && count <= most).then_some(Self { indent, counter, turns })
    }
}

/// Stands behind the first line of a loop that is to be written out.
const MARK: &str = "// unrolled";

/// The fragment with its loops written out. `constant` tells the constants that they may be as long as. Such loops have neither `break`
/// nor `continue`.
pub(super) fn unrolled(fragment: &str, constant: impl Fn(&str) -> Option<u32>) -> String {
    let lines: Vec<_> = fragment.lines().collect();
    let mut wgsl = String::with_capacity(2 * fragment.len());
    write(&mut wgsl, &lines, &constant);
    wgsl
}

/// Whether [`unrolled`] writes a loop of the fragment out.
pub(super) fn has_loop(fragment: &str, constant: impl Fn(&str) -> Option<u32>) -> bool {
    fragment.lines().any(|line| Loop::of(line, &constant).is_some())
}

fn write(wgsl: &mut String, lines: &[&str], constant: &impl Fn(&str) -> Option<u32>) {
    let mut rest = lines;
    while let [line, following @ ..] = rest {
        rest = following;
        let end = |it: &Loop<'_>| following.iter().position(|line| line.strip_prefix(it.indent) == Some("}"));
        match Loop::of(line, constant).and_then(|it| Some((end(&it)?, it))) {
            Some((end, Loop { indent, counter, turns })) => {
                for turn in turns {
                    wgsl.extend([indent, "{\n", indent, "    const ", counter, " = ", &turn.to_string(), "u;\n"]);
                    write(wgsl, &following[..end], constant);
                    wgsl.extend([indent, "}\n"]);
                }
                rest = &following[end + 1..];
            }
            None => wgsl.extend([line, "\n"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(name: &str) -> Option<u32> {
        match name {
            "TURNS" => Some(4),
            "STEP" => Some(2),
            "ONE" => Some(1),
            "MANY" => Some(MOST_TURNS + 1),
            _ => None,
        }
    }

    #[test]
    fn marked_loops_are_written_out() {
        let fragment = "\
fn f() {
    for (var turn = 0u; turn < TURNS; turn += STEP) { // unrolled
        if turn > 0u {
            g(turn);
        }
    }
    h();
}
";
        let expected = "\
fn f() {
    {
        const turn = 0u;
        if turn > 0u {
            g(turn);
        }
    }
    {
        const turn = 2u;
        if turn > 0u {
            g(turn);
        }
    }
    h();
}
";
        assert_eq!(unrolled(fragment, constant), expected);
    }

    #[test]
    fn loops_in_loops_too() {
        let fragment = "\
for (var round = 0u; round < params.rounds; round++) {
    for (var slot = 0u; slot < ONE; slot++) {
        for (var turn = 0u; turn < STEP; turn++) { // unrolled
            g(slot, turn);
        }
    }
}
";
        let expected = "\
for (var round = 0u; round < params.rounds; round++) {
    {
        const slot = 0u;
        {
            const turn = 0u;
            g(slot, turn);
        }
        {
            const turn = 1u;
            g(slot, turn);
        }
    }
}
";
        assert_eq!(unrolled(fragment, constant), expected);
    }

    #[test]
    fn other_loops_stay() {
        for header in [
            "for (var turn = 0u; turn < TURNS; turn++) {",
            "for (var turn = 0u; turn < MANY; turn++) { // unrolled",
            "for (var turn = 1u; turn < TURNS; turn++) { // unrolled",
            "for (var turn = 0u; turn < params.turns; turn++) { // unrolled",
            "for (var end = TURNS; end > 0u; end--) { // unrolled",
        ] {
            let fragment = format!("{header}\n    g(turn);\n}}\n");
            assert_eq!(unrolled(&fragment, constant), fragment);
        }
    }
}
