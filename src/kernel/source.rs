use std::fmt::Write as _;

use super::{Affine, Dialect};

/// Name of the entry point of every kernel.
pub const ENTRY_POINT: &str = "main";

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// `shaders/row.wgsl`: whole rows.
    Row,
    /// `shaders/partial.wgsl`: the moments of the segments of rows.
    Partial,
    /// `shaders/merge.wgsl`: merges those moments and normalizes the segments.
    Merge,
}

/// How many elements one access of memory moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Four elements, 16 bytes in f32; for widths that are multiples of 4.
    Vector,
    /// One element.
    Scalar,
}

impl Unit {
    /// The widest unit that divides rows of this width.
    pub const fn for_width(width: u32) -> Self {
        if width.is_multiple_of(4) { Self::Vector } else { Self::Scalar }
    }

    /// Elements.
    pub const fn elements(self) -> u32 {
        match self {
            Self::Vector => 4,
            Self::Scalar => 1,
        }
    }
}

/// Where a span's elements lie between the passes over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// In registers: memory is read once.
    Held,
    /// In memory: it is read in each pass.
    Reread,
}

/// How sums are formed across the invocations that share a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// One invocation has the whole span.
    Lane,
    /// Shuffles within a subgroup; no barrier.
    Subgroup,
    /// Subgroup sums, then workgroup memory; the span's invocations are the whole workgroup.
    SubgroupThenWorkgroup,
    /// A tree in workgroup memory; needs no subgroups.
    Workgroup,
}

/// What a binding is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingRole {
    /// The [`Params`](super::Params) block; uniform.
    Params,
    /// Elements to normalize; read.
    Input,
    /// Weight, `width` elements; read.
    Weight,
    /// Bias, `width` elements; read.
    Bias,
    /// Normalized elements; written.
    Output,
    /// Moments of segments, 16 bytes each; written by [`Entry::Partial`], read by [`Entry::Merge`].
    Partials,
}

impl BindingRole {
    /// Binding number in group 0. A role has the same number in every kernel; an absent role leaves a gap.
    pub const fn binding(self) -> u32 {
        match self {
            Self::Params => 0,
            Self::Input => 1,
            Self::Weight => 2,
            Self::Bias => 3,
            Self::Output => 4,
            Self::Partials => 5,
        }
    }
}

/// A complete kernel variant: everything its WGSL depends on, and so the whole key of a compiled pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// What it computes.
    pub entry: Entry,
    /// Elements of one access.
    pub unit: Unit,
    /// Registers or memory.
    pub access: Access,
    /// Sums across invocations.
    pub reduction: Reduction,
    /// The affine map.
    pub affine: Affine,
    /// Elements of a row.
    pub width: u32,
    /// Elements of a segment; `width` where rows are not split.
    pub segment_width: u32,
    /// Invocations that share a span.
    pub lanes: u32,
    /// Spans in a workgroup.
    pub spans_per_workgroup: u32,
    /// Who reads the WGSL.
    pub dialect: Dialect,
}

impl Kernel {
    /// Invocations in a workgroup.
    pub const fn workgroup_size(&self) -> u32 {
        self.lanes * self.spans_per_workgroup
    }

    /// Segments of a row; 1 where rows are not split.
    pub const fn segments(&self) -> u32 {
        self.width.div_ceil(self.segment_width)
    }

    /// Turns of one loop over a span: the units that one invocation has of it.
    pub const fn turns(&self) -> u32 {
        (self.segment_width / self.unit.elements()).div_ceil(self.lanes)
    }

    /// Whether the kernel uses subgroup operations.
    pub const fn uses_subgroups(&self) -> bool {
        matches!(self.reduction, Reduction::Subgroup | Reduction::SubgroupThenWorkgroup)
    }

    /// Whether an invocation ever waits for another by a barrier.
    pub const fn uses_barriers(&self) -> bool {
        matches!(self.reduction, Reduction::SubgroupThenWorkgroup | Reduction::Workgroup)
    }

    /// Bytes of workgroup memory.
    pub const fn workgroup_storage(&self) -> u32 {
        match self.reduction {
            Reduction::Lane | Reduction::Subgroup => 0,
            Reduction::SubgroupThenWorkgroup => self.workgroup_size() / 4 * 12 + 16,
            Reduction::Workgroup => self.workgroup_size() * 12 + 16,
        }
    }

    /// The bindings of group 0 in ascending order.
    pub fn bindings(&self) -> Vec<BindingRole> {
        let writes_output = self.entry != Entry::Partial;
        let mut roles = vec![BindingRole::Params, BindingRole::Input];
        if writes_output {
            if self.affine.has_weight() {
                roles.push(BindingRole::Weight);
            }
            if self.affine.has_bias() {
                roles.push(BindingRole::Bias);
            }
            roles.push(BindingRole::Output);
        }
        if self.entry != Entry::Row {
            roles.push(BindingRole::Partials);
        }
        roles
    }

    /// The complete WGSL: a prelude of constants, then one fragment for each axis of variation, then the entry file.
    pub fn wgsl(&self) -> String {
        let mut wgsl = self.prelude();
        for fragment in self.fragments() {
            wgsl.push('\n');
            wgsl.push_str(fragment);
        }
        wgsl
    }

    /// A name for pipelines and reports.
    pub fn label(&self) -> String {
        format!(
            "layer norm {:?} {:?} {:?} {:?} width {} segment {} lanes {} spans {}",
            self.entry,
            self.unit,
            self.access,
            self.reduction,
            self.width,
            self.segment_width,
            self.lanes,
            self.spans_per_workgroup
        )
    }

    fn prelude(&self) -> String {
        let mut prelude = String::new();
        if self.dialect == Dialect::Browser && self.uses_subgroups() {
            // The kernels branch on values that are equal in a whole subgroup; the analysis cannot see that.
            prelude.push_str("enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n");
        }
        for (name, value) in [
            ("WIDTH", self.width),
            ("SEGMENT_WIDTH", self.segment_width),
            ("SEGMENTS", self.segments()),
            ("LANES", self.lanes),
            ("SPANS_PER_WORKGROUP", self.spans_per_workgroup),
            ("WORKGROUP_SIZE", self.workgroup_size()),
            ("TURNS", self.turns()),
        ] {
            writeln!(prelude, "const {name}: u32 = {value}u;").expect("a String takes any text");
        }
        prelude
    }

    fn fragments(&self) -> Vec<&'static str> {
        let unit = match self.unit {
            Unit::Vector => include_str!("../../shaders/unit/vector.wgsl"),
            Unit::Scalar => include_str!("../../shaders/unit/scalar.wgsl"),
        };
        let access = match self.access {
            Access::Held => include_str!("../../shaders/access/held.wgsl"),
            Access::Reread => include_str!("../../shaders/access/reread.wgsl"),
        };
        let reduce = match self.reduction {
            Reduction::Lane => include_str!("../../shaders/reduce/lane.wgsl"),
            Reduction::Subgroup => include_str!("../../shaders/reduce/subgroup.wgsl"),
            Reduction::SubgroupThenWorkgroup => include_str!("../../shaders/reduce/subgroup_workgroup.wgsl"),
            Reduction::Workgroup => include_str!("../../shaders/reduce/workgroup.wgsl"),
        };
        let affine = match self.affine {
            Affine::None => include_str!("../../shaders/affine/none.wgsl"),
            Affine::Weight => include_str!("../../shaders/affine/weight.wgsl"),
            Affine::WeightAndBias => include_str!("../../shaders/affine/weight_bias.wgsl"),
        };
        let mut fragments = vec![
            include_str!("../../shaders/params.wgsl"),
            unit,
            include_str!("../../shaders/storage/f32.wgsl"),
            include_str!("../../shaders/span.wgsl"),
            access,
            reduce,
            include_str!("../../shaders/moments.wgsl"),
        ];
        if self.entry != Entry::Merge {
            fragments.push(include_str!("../../shaders/measure.wgsl"));
        }
        if self.entry != Entry::Partial {
            fragments.push(affine);
            fragments.push(include_str!("../../shaders/normalize.wgsl"));
        }
        fragments.push(match self.entry {
            Entry::Row => include_str!("../../shaders/row.wgsl"),
            Entry::Partial => include_str!("../../shaders/partial.wgsl"),
            Entry::Merge => include_str!("../../shaders/merge.wgsl"),
        });
        fragments
    }
}
