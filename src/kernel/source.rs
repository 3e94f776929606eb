use std::fmt::{self, Write as _};

use super::unroll::{MOST_TURNS, has_loop, unrolled};
use super::{ColumnSums, Dialect, Dimension, Grid, Modulation, Normalization, Operation, Role};
use crate::tensor::StorageType;

/// Name of the entry point of every kernel.
pub const ENTRY_POINT: &str = "main";

/// WGSL of the kernel that fits the dispatches of a plan to a row count in a buffer on the device; `shaders/arguments.wgsl`
/// says what it binds.
pub const ARGUMENTS_WGSL: &str = include_str!("../../shaders/arguments.wgsl");

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// `shaders/row.wgsl`: whole rows.
    Row,
    /// `shaders/partial.wgsl`: the moments of the segments of rows.
    Partial,
    /// `shaders/row.wgsl` with `shaders/merge.wgsl`: merges those moments and normalizes the segments.
    Merge,
    /// `shaders/causal_tiles.wgsl`: the moments of tiles of positions.
    CausalTiles,
    /// `shaders/causal_carries.wgsl`: those of all positions before each tile.
    CausalCarries,
    /// `shaders/causal_rows.wgsl`: what normalizes each position, from all up to it.
    CausalRows,
    /// `shaders/normalize_known.wgsl`: normalizes rows, or segments of rows, by what is known of them: as the scan over positions has left
    /// it, or by given moments.
    NormalizeKnown,
    /// `shaders/causal_gradient_tiles.wgsl`: what tiles of positions bring to the gradients of those before.
    CausalGradientTiles,
    /// `shaders/causal_gradient_carries.wgsl`: what all positions after each tile bring.
    CausalGradientCarries,
    /// `shaders/causal_gradient_rows.wgsl`: what the gradient of each position takes from all positions from it on.
    CausalGradientRows,
    /// `shaders/gradient.wgsl`: the gradients of whole rows, and sums over rows for others.
    Gradient,
    /// `shaders/gradient_sums.wgsl`: the sums of rows, or of segments of rows, that their gradients rest on.
    GradientSums,
    /// `shaders/gradient_merge.wgsl`: adds up those of the segments.
    GradientMerge,
    /// `shaders/gradient_coefficients.wgsl`: from given moments and sums of rows what their gradients take from each row as a whole.
    GradientCoefficients,
    /// `shaders/gradient_columns.wgsl`: the gradients of rows whose sums are known, and sums over rows for others.
    GradientColumns,
    /// `shaders/gradient_conditions.wgsl`: adds up the sums over the rows of each condition, and writes the gradients of scale, shift
    /// and gate.
    GradientConditions,
    /// `shaders/gradient_channel_sums.wgsl`: sums over the positions of each channel of each row.
    GradientChannelSums,
    /// `shaders/gradient_channel_conditions.wgsl`: adds these up over the rows of each condition, and writes the gradients of scale and
    /// shift.
    GradientChannelConditions,
    /// `shaders/gradient_channels.wgsl`: adds these up over all samples, and writes the gradients of weight and bias.
    GradientChannels,
    /// `shaders/gradient_parameters.wgsl`: adds up the sums over all rows, and writes the gradients of weight and bias.
    GradientParameters,
}

impl Entry {
    /// Whether it belongs to the backward pass. The kernels that measure rows for a backward pass are the forward pass's.
    pub const fn is_backward(self) -> bool {
        match self {
            Self::Row
            | Self::Partial
            | Self::Merge
            | Self::CausalTiles
            | Self::CausalCarries
            | Self::CausalRows
            | Self::NormalizeKnown => false,
            Self::Gradient
            | Self::GradientSums
            | Self::GradientMerge
            | Self::GradientCoefficients
            | Self::GradientColumns
            | Self::GradientConditions
            | Self::GradientChannelSums
            | Self::GradientChannelConditions
            | Self::GradientChannels
            | Self::GradientParameters
            | Self::CausalGradientTiles
            | Self::CausalGradientCarries
            | Self::CausalGradientRows => true,
        }
    }

    /// Whether it writes a tensor in this role, if it has one.
    const fn writes(self, role: Role) -> bool {
        match role {
            Role::Moments => matches!(self, Self::Row | Self::Merge),
            Role::GradientSums => matches!(self, Self::GradientSums | Self::GradientMerge),
            _ if self.is_backward() => Operation::Backward.writes(role),
            _ => Operation::Forward.writes(role),
        }
    }

    /// Whether it is about channels, of which each is a segment of a row.
    pub(super) const fn is_of_channels(self) -> bool {
        matches!(self, Self::GradientChannelSums | Self::GradientChannelConditions | Self::GradientChannels)
    }

    /// Whether it is a scan over positions, of which each invocation has a tile or a sequence.
    pub(super) const fn scans(self) -> bool {
        matches!(
            self,
            Self::CausalTiles
                | Self::CausalCarries
                | Self::CausalRows
                | Self::CausalGradientTiles
                | Self::CausalGradientCarries
                | Self::CausalGradientRows
        )
    }

    /// Whether it adds up what walks over the rows have left.
    pub(super) const fn adds_up(self) -> bool {
        matches!(self, Self::GradientConditions | Self::GradientParameters)
    }

    /// Whether its invocations walk over the rows, so that their number does not depend on that of the rows.
    pub(super) const fn walks(self) -> bool {
        matches!(self, Self::Gradient | Self::GradientColumns)
    }
}

/// How many elements one access of memory moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Eight elements, 16 bytes in f16 and bf16; where input and output are of these, and width, offsets and strides are multiples
    /// of 8.
    Octet,
    /// Four elements, 16 bytes in f32 and 8 in f16 and bf16; where width, offsets and strides are multiples of 4.
    Vector,
    /// One element, and each invocation has two neighbours, those of one word of an output of 16 bits, which it stores whole; where
    /// vectors do not fit such an output.
    Pair,
    /// One element. So it is for rows of f32, too, where no vector divides width, offset or stride: the first and the last vector of such a
    /// row would belong to two rows, and WGSL lets a store to one component of a vector write all of it. Neighbouring invocations have
    /// neighbouring elements, so that a subgroup still touches whole cache lines.
    Scalar,
    /// The elements that four neighbouring rows have at one position, 16 bytes in f32 and 8 in f16 and bf16; where rows lie side by side,
    /// and numbers, offsets and strides are multiples of 4.
    Rows,
}

impl Unit {
    /// Elements.
    pub const fn elements(self) -> u32 {
        match self {
            Self::Octet => 8,
            Self::Vector => 4,
            Self::Pair | Self::Scalar | Self::Rows => 1,
        }
    }

    /// Turns of a loop over a span that belong together.
    pub const fn turns(self) -> u32 {
        match self {
            Self::Pair => 2,
            Self::Octet | Self::Vector | Self::Scalar | Self::Rows => 1,
        }
    }

    /// The unit of a kernel that stores no elements, and so need not have two neighbours of a word.
    pub(super) const fn read_only(self) -> Self {
        match self {
            Self::Pair => Self::Scalar,
            other => other,
        }
    }

    /// Whether its elements are vectors of four.
    pub(super) const fn is_vector(self) -> bool {
        matches!(self, Self::Octet | Self::Vector | Self::Rows)
    }

    /// Vectors of four, or single elements.
    const fn quads(self) -> u32 {
        match self {
            Self::Octet => 2,
            Self::Vector | Self::Pair | Self::Scalar | Self::Rows => 1,
        }
    }
}

/// Where a span's elements lie between the passes over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// In registers: memory is read once.
    Held,
    /// The first units of each invocation in registers, the next in workgroup memory; the others are read again.
    Partly {
        /// Units in registers; at least 1.
        registers: u32,
        /// Units in workgroup memory.
        shared: u32,
    },
    /// In memory: it is read in each pass.
    Reread,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("Held"),
            Self::Partly { registers, shared } => write!(f, "Partly{registers}+{shared}"),
            Self::Reread => f.write_str("Reread"),
        }
    }
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
    /// A tensor.
    Tensor(Role),
    /// Moments of segments, 16 bytes each; written by [`Entry::Partial`], read by [`Entry::Merge`].
    Partials,
    /// Sums of segments, 16 bytes each; written by [`Entry::GradientSums`], read by [`Entry::GradientMerge`].
    SegmentSums,
    /// What the gradient of a row takes from the row as a whole, 32 bytes each; written by [`Entry::GradientSums`],
    /// [`Entry::GradientMerge`] or [`Entry::GradientCoefficients`], read by [`Entry::GradientColumns`].
    Coefficients,
    /// Sums over the rows of each walk, 4 bytes a column each ([`ColumnSums`]); written by [`Entry::Gradient`] or
    /// [`Entry::GradientColumns`], read by [`Entry::GradientConditions`] and [`Entry::GradientParameters`], which may leave the sums of
    /// all walks behind them.
    ColumnSums,
    /// What tiles of positions have left, 32 bytes each; written and read by the scans of causal layer normalization.
    Prefixes,
    /// What normalizes each position of a sequence, 16 bytes each; written by [`Entry::CausalRows`].
    Scalings,
    /// In the place of [`Role::State`] where a sequence takes several chunks: 32 bytes a sequence of a chunk.
    Carry,
    /// Sums over the positions of each channel of each row, 8 bytes each; written by [`Entry::GradientChannelSums`], read by
    /// [`Entry::GradientChannelConditions`] and [`Entry::GradientChannels`].
    ChannelSums,
}

impl BindingRole {
    /// Binding number in group 0. A role has the same number in every kernel; an absent role leaves a gap. Those of tensors end below 40,
    /// where the others begin.
    pub const fn binding(self) -> u32 {
        const { assert!(Role::ALL.len() < 40) }
        match self {
            Self::Params => 0,
            Self::Tensor(role) => 1 + role as u32,
            Self::Partials => 40,
            Self::SegmentSums => 41,
            Self::Coefficients => 42,
            Self::ColumnSums => 43,
            Self::Prefixes => 44,
            Self::Scalings => 45,
            Self::Carry => 46,
            Self::ChannelSums => 47,
        }
    }
}

/// A binding of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// What it is for; gives the number.
    pub role: BindingRole,
    /// Whether a storage binding is `read_write` rather than `read`. The uniform one is not.
    pub writable: bool,
}

/// How a kernel gets at a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// By a binding of its own.
    Own,
    /// By a binding of its own, which is writable although the tensor is one that is read, because its buffer is written too:
    /// no buffer may be bound for reading and for writing at once.
    Shared,
    /// By the binding of this tensor, whose elements it overwrites.
    InPlaceOf(Role),
}

/// A tensor as a kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// What an element is.
    pub storage: StorageType,
    /// How the kernel gets at it.
    pub place: Place,
}

/// A complete kernel variant: everything its WGSL depends on, and so the whole key of a compiled pipeline. Those of a
/// [`Plan`](super::Plan) hold together; one made by hand must have widths, lanes and spans of at least 1.
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
    /// The normalization.
    pub normalization: Normalization,
    /// Whether the weight is stored as its difference from 1.
    pub zero_centred_weight: bool,
    /// How scale and shift go together with weight and bias; the default where there are none.
    pub modulation: Modulation,
    /// Whether rows belong to conditions, and that matters here.
    pub conditions: bool,
    /// Whether rows are positions of sequences, and that matters here.
    pub causal: bool,
    /// Whether sequences have several tiles, or a state.
    pub carries: bool,
    /// How rows and elements lie, where they do not one after another.
    pub grid: Option<Grid>,
    /// Whether neighbouring invocations have neighbouring rows rather than neighbouring elements.
    pub rows_first: bool,
    /// What is added up over rows; nothing outside the backward pass.
    pub column_sums: ColumnSums,
    /// The tensors, by role.
    pub slots: [Option<Slot>; Role::ALL.len()],
    /// Elements of a row.
    pub width: u32,
    /// Elements of a segment; `width` where rows are not split.
    pub segment_width: u32,
    /// Invocations that share a span.
    pub lanes: u32,
    /// Spans that one invocation takes part in, one after another; as [`Geometry`](super::Geometry) has it.
    pub spans_per_lane: u32,
    /// Spans in a workgroup, a multiple of `spans_per_lane`.
    pub spans_per_workgroup: u32,
    /// The smallest subgroup, for [`Reduction::SubgroupThenWorkgroup`]; 0 for the others.
    pub subgroup_size: u32,
    /// Whether f16 is read by `unpack2x16float` rather than by its bits.
    pub unpack_f16: bool,
    /// Whether f16 is written by `pack2x16float` rather than by its bits.
    pub pack_f16: bool,
    /// Who reads the WGSL.
    pub dialect: Dialect,
    /// Whether loops over registers are written out, for compilers that would leave their arrays in memory: on all but processors, and not
    /// in browsers, which do not tell a processor from a GPU.
    pub written_out: bool,
}

impl Kernel {
    /// Invocations in a workgroup.
    pub const fn workgroup_size(&self) -> u32 {
        self.lanes * (self.spans_per_workgroup / self.spans_per_lane)
    }

    /// Segments of a row; 1 where rows are not split.
    pub const fn segments(&self) -> u32 {
        self.width.div_ceil(self.segment_width)
    }

    /// Turns of one loop over a span: the units that one invocation has of it; for a kernel that has no elements of a row, the segments
    /// that it merges, or 1.
    pub const fn turns(&self) -> u32 {
        match self.entry {
            Entry::GradientMerge => return self.segments().div_ceil(self.lanes),
            Entry::GradientCoefficients
            | Entry::GradientConditions
            | Entry::GradientChannelConditions
            | Entry::GradientChannels
            | Entry::GradientParameters => return 1,
            entry if entry.scans() => return 1,
            _ => {}
        }
        match self.unit {
            // A row may begin and end with half a word.
            Unit::Pair => 2 * (self.segment_width + 1).div_ceil(2 * self.lanes),
            unit => (self.segment_width / unit.elements()).div_ceil(self.lanes),
        }
    }

    /// Whether the kernel uses subgroup operations.
    pub const fn uses_subgroups(&self) -> bool {
        matches!(self.reduction, Reduction::Subgroup | Reduction::SubgroupThenWorkgroup)
    }

    /// Whether an invocation ever waits for another by a barrier.
    pub const fn uses_barriers(&self) -> bool {
        match self.reduction {
            Reduction::Lane => false,
            // Before each row but the first of a walk.
            Reduction::Subgroup => matches!(self.entry, Entry::Gradient),
            Reduction::SubgroupThenWorkgroup | Reduction::Workgroup => true,
        }
    }

    /// Bytes of workgroup memory.
    pub const fn workgroup_storage(&self) -> u32 {
        let reduction = match self.reduction {
            Reduction::Lane | Reduction::Subgroup => 0,
            Reduction::SubgroupThenWorkgroup => self.workgroup_size() / self.subgroup_size * 36 + 16,
            Reduction::Workgroup => self.workgroup_size() * 20 + 16,
        };
        match self.access {
            Access::Partly { shared, .. } => reduction + (shared * self.workgroup_size() + 1) * self.source_bytes(),
            Access::Held | Access::Reread => reduction,
        }
    }

    /// Bytes of a unit as it is held between the passes over it.
    const fn source_bytes(&self) -> u32 {
        match (self.slot(Role::Input), self.slot(Role::Residual), self.unit) {
            (Some(Slot { storage: StorageType::F16 | StorageType::Bf16, .. }), None, Unit::Octet | Unit::Vector) => {
                self.unit.elements() * 2
            }
            _ => self.unit.elements() * 4,
        }
    }

    /// The tensor in this role, if the kernel has it.
    pub const fn slot(&self, role: Role) -> Option<Slot> {
        self.slots[role as usize]
    }

    /// The bindings of group 0 in ascending order.
    pub fn bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![Binding { role: BindingRole::Params, writable: false }];
        for (role, slot) in self.tensors() {
            let writable = match slot.place {
                Place::Own => self.writes(role),
                Place::Shared => true,
                Place::InPlaceOf(_) => continue,
            };
            bindings.push(Binding { role: BindingRole::Tensor(role), writable });
        }
        let is_split = self.segments() > 1;
        let is_of_parts = self.slot(Role::GradientSums).is_some();
        let sums_up = self.column_sums.count() > 0;
        let scratch: &[(BindingRole, bool, bool)] = &match self.entry {
            Entry::Row => vec![],
            Entry::Partial => vec![(BindingRole::Partials, true, true)],
            Entry::Merge => vec![(BindingRole::Partials, true, false)],
            Entry::Gradient => vec![(BindingRole::ColumnSums, sums_up, true)],
            Entry::CausalTiles => vec![(BindingRole::Partials, true, false), (BindingRole::Prefixes, true, true)],
            Entry::CausalCarries => {
                vec![(BindingRole::Prefixes, true, true), (BindingRole::Carry, self.slot(Role::State).is_none(), true)]
            }
            Entry::CausalRows => vec![
                (BindingRole::Partials, true, false),
                (BindingRole::Prefixes, self.carries, true),
                (BindingRole::Scalings, true, true),
            ],
            Entry::NormalizeKnown => vec![(BindingRole::Scalings, self.causal, false)],
            Entry::GradientSums => vec![
                (BindingRole::SegmentSums, is_split || self.causal, true),
                (BindingRole::Coefficients, !is_split && !self.causal && !is_of_parts, true),
                (BindingRole::Scalings, self.causal, false),
            ],
            Entry::CausalGradientTiles => vec![
                (BindingRole::SegmentSums, true, false),
                (BindingRole::Prefixes, true, true),
                (BindingRole::Scalings, true, false),
            ],
            Entry::CausalGradientCarries => vec![(BindingRole::Prefixes, true, true)],
            Entry::CausalGradientRows => vec![
                (BindingRole::SegmentSums, true, false),
                (BindingRole::Coefficients, true, true),
                (BindingRole::Prefixes, self.carries, true),
                (BindingRole::Scalings, true, false),
            ],
            Entry::GradientMerge => {
                vec![(BindingRole::SegmentSums, true, false), (BindingRole::Coefficients, !is_of_parts, true)]
            }
            Entry::GradientCoefficients => vec![(BindingRole::Coefficients, true, true)],
            Entry::GradientColumns => {
                vec![(BindingRole::Coefficients, true, false), (BindingRole::ColumnSums, sums_up, true)]
            }
            Entry::GradientChannelSums => {
                vec![(BindingRole::Coefficients, true, false), (BindingRole::ChannelSums, true, true)]
            }
            Entry::GradientChannelConditions | Entry::GradientChannels => {
                vec![(BindingRole::ChannelSums, true, false)]
            }
            Entry::GradientConditions | Entry::GradientParameters => vec![(BindingRole::ColumnSums, true, true)],
        };
        for &(role, _, writable) in scratch.iter().filter(|(_, is_bound, _)| *is_bound) {
            bindings.push(Binding { role, writable });
        }
        bindings
    }

    /// Whether it writes a tensor in this role, if it has one.
    pub const fn writes(&self, role: Role) -> bool {
        self.entry.writes(role)
    }

    /// Spans that one dispatch has for each row.
    pub(super) const fn spans_per_row(&self) -> u32 {
        match self.entry {
            Entry::GradientMerge | Entry::GradientCoefficients => 1,
            _ => self.segments(),
        }
    }

    /// What it writes beside the tensors, in WGSL: where the state of a sequence lies.
    fn write_state(&self, wgsl: &mut String) -> std::fmt::Result {
        let role = if self.slot(Role::State).is_some() { BindingRole::Tensor(Role::State) } else { BindingRole::Carry };
        writeln!(wgsl, "\n@group(0) @binding({}) var<storage, read_write> state: array<u32>;", role.binding())
    }

    /// The complete WGSL, with one entry point [`ENTRY_POINT`]: a generated prelude (constants, then bindings and access to each
    /// tensor), one fragment for each axis of variation, and the entry file. It writes workgroup memory before it reads it, so a
    /// pipeline needs no zeros there: with `zero_initialize_workgroup_memory` off, FXC (DX12) compiles ten times as fast.
    pub fn wgsl(&self) -> String {
        let mut wgsl = self.directives();
        self.write_constants(&mut wgsl);
        self.write_tensors(&mut wgsl).expect("a String takes any text");
        for fragment in self.fragments() {
            wgsl.push('\n');
            match self.written_out {
                true => wgsl.push_str(&unrolled(fragment, |name| self.loop_constant(name))),
                false => wgsl.push_str(fragment),
            }
        }
        wgsl
    }

    /// The constants by which loops over registers, and over the spans of an invocation, are counted.
    fn loop_constant(&self, name: &str) -> Option<u32> {
        match (name, self.access) {
            // Walks have the code of two tensors in each turn, and the picks for GPUs have 16 turns at most.
            ("TURNS", _) if self.entry.walks() && self.turns() > MOST_TURNS / 2 => None,
            ("TURNS", _) | ("REGISTERS", Access::Held) => Some(self.turns()),
            ("REGISTERS", Access::Partly { registers, .. }) => Some(registers),
            ("SPANS_PER_LANE", _) => Some(self.spans_per_lane),
            ("WRITE_STEP", _) => Some(self.unit.turns()),
            _ => None,
        }
    }

    /// A name for pipelines and reports.
    pub fn label(&self) -> String {
        format!(
            "{:?} {:?} {:?} segment {} lanes {} spans {} of {}, {}",
            self.entry,
            self.access,
            self.reduction,
            self.segment_width,
            self.lanes,
            self.spans_per_workgroup,
            self.spans_per_lane,
            self.task()
        )
    }

    /// What the kernel has to do, apart from how.
    pub(super) fn task(&self) -> String {
        let mut task = format!("{:?} {:?} width {}", self.normalization, self.unit, self.width);
        let ColumnSums { products, gradients, gates } = self.column_sums;
        for (has, sum) in [(products, "products"), (gradients, "gradients"), (gates, "gates")] {
            if has {
                write!(task, ", sums of {sum}").expect("a String takes any text");
            }
        }
        if self.conditions {
            write!(task, ", {:?}", self.modulation).expect("a String takes any text");
        }
        if self.causal {
            task.push_str(", causal");
        }
        if let Some(grid) = &self.grid {
            write!(task, ", {grid}").expect("a String takes any text");
        }
        for (role, slot) in self.tensors() {
            write!(task, ", {role} {}", slot.storage).expect("a String takes any text");
            match slot.place {
                Place::Own => {}
                Place::Shared => task.push_str(" shared"),
                Place::InPlaceOf(other) => write!(task, " in place of {other}").expect("a String takes any text"),
            }
        }
        task
    }

    fn tensors(&self) -> impl Iterator<Item = (Role, Slot)> {
        let slots = self.slots;
        Role::ALL.into_iter().filter_map(move |role| Some((role, slots[role as usize]?)))
    }

    fn directives(&self) -> String {
        if self.dialect == Dialect::Browser && self.uses_subgroups() {
            // The kernels branch on values that are equal in a whole subgroup; the analysis cannot see that.
            "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n\n".into()
        } else {
            String::new()
        }
    }

    fn write_constants(&self, wgsl: &mut String) {
        wgsl.push_str("// The numbers of this variant.\n\n");
        for (name, value) in [
            ("WIDTH", self.width),
            ("SEGMENT_WIDTH", self.segment_width),
            ("SEGMENTS", self.segments()),
            ("LANES", self.lanes),
            ("SPANS_PER_LANE", self.spans_per_lane),
            ("SPANS_PER_WORKGROUP", self.spans_per_workgroup),
            ("WORKGROUP_SIZE", self.workgroup_size()),
            ("TURNS", self.turns()),
        ] {
            writeln!(wgsl, "const {name}: u32 = {value}u;").expect("a String takes any text");
        }
        let mut more = Vec::new();
        if self.unit.is_vector() {
            more.push(("UNIT", self.unit.elements()));
        }
        match self.access {
            Access::Held => more.push(("REGISTERS", self.turns())),
            Access::Partly { registers, shared } => more.extend([("REGISTERS", registers), ("SHARED", shared)]),
            Access::Reread => {}
        }
        if self.reduction == Reduction::SubgroupThenWorkgroup {
            more.push(("SUBGROUP_SIZE", self.subgroup_size));
        }
        if self.entry.walks() || self.entry.adds_up() {
            // What is not added up has the number after the last.
            let ColumnSums { products, gradients, gates } = self.column_sums;
            let sums = self.column_sums.count();
            let number = |has: bool, before: [bool; 2]| if has { before.map(u32::from).iter().sum() } else { sums };
            more.extend([
                ("SUMS", sums),
                ("PRODUCTS", number(products, [false; 2])),
                ("GRADIENTS", number(gradients, [products, false])),
                ("GATES", number(gates, [products, gradients])),
            ]);
        }
        for (name, value) in more {
            writeln!(wgsl, "const {name}: u32 = {value}u;").expect("a String takes any text");
        }
        for (name, value) in [
            ("REREAD", self.access == Access::Reread),
            ("CONDITIONS", self.conditions),
            // Whether the gradients that are sums over rows depend on it.
            ("ADAPTIVE", self.modulation == Modulation::Adaptive && self.is_modulated()),
        ] {
            writeln!(wgsl, "const {name}: bool = {value};").expect("a String takes any text");
        }
    }

    /// Sets what the WGSL does not depend on to its default, so that kernels that are the same are compiled once.
    pub(super) fn forget_what_does_not_matter(&mut self) {
        let modulated: &[Role] = match self.entry {
            Entry::Row | Entry::Merge | Entry::NormalizeKnown => &[Role::Scale, Role::Shift],
            Entry::Gradient
            | Entry::GradientSums
            | Entry::GradientColumns
            | Entry::GradientChannels
            | Entry::GradientParameters => &[Role::Scale],
            Entry::GradientConditions | Entry::GradientChannelConditions => &[Role::ScaleGradient],
            _ => &[],
        };
        if modulated.iter().all(|role| self.slot(*role).is_none()) {
            self.modulation = Modulation::default();
        }
        if matches!(
            self.entry,
            Entry::CausalTiles
                | Entry::CausalCarries
                | Entry::CausalRows
                | Entry::CausalGradientCarries
                | Entry::NormalizeKnown
        ) {
            self.normalization = Normalization::default();
        }
        self.causal &= matches!(self.entry, Entry::GradientSums | Entry::NormalizeKnown);
        if self.slots.iter().flatten().count() == 0 || self.entry.scans() || self.entry == Entry::GradientCoefficients {
            self.grid = None;
        }
        self.grid = self.grid.map(Grid::without_outermost_size);
        let has_loop = |fragment: &&str| has_loop(fragment, |name| self.loop_constant(name));
        self.written_out = self.written_out && self.fragments().iter().any(has_loop);
    }

    /// Elements of one access of a tensor.
    pub(super) fn elements_of_access(&self, role: Role) -> u32 {
        let is_single = role.words().is_some() || self.is_shared(role);
        match self.unit {
            _ if is_single => 1,
            Unit::Rows => 4,
            unit => unit.elements(),
        }
    }

    /// Whether neighbouring elements of a row share their parameters.
    fn shares_parameters(&self) -> bool {
        self.grid.as_ref().is_some_and(Grid::has_shared_parameters)
    }

    /// Whether they share one of this tensor.
    fn is_shared(&self, role: Role) -> bool {
        let is_parameter = role.is_parameter() || role.is_condition();
        is_parameter && (self.shares_parameters() || self.unit == Unit::Rows)
    }

    /// Whether a condition changes what x̂ is multiplied by, or what is added to it.
    fn is_modulated(&self) -> bool {
        self.slot(Role::Scale).or(self.slot(Role::Shift)).or(self.slot(Role::ScaleGradient)).is_some()
    }

    /// The bindings of the tensors; for each that is read, a function that loads one unit as it is stored and one that decodes
    /// it; for each that is written, a function that encodes and stores one. Where no tensor is to be written, that does nothing.
    fn write_tensors(&self, wgsl: &mut String) -> std::fmt::Result {
        wgsl.push_str("\n// The tensors of this variant. A position counts units from the beginning of the row.\n");
        if self.entry == Entry::CausalCarries {
            self.write_state(wgsl)?;
        }
        for Binding { role, writable } in self.bindings() {
            let BindingRole::Tensor(role) = role else { continue };
            if role == Role::State {
                continue;
            }
            let element = self.element(role);
            let access = if writable { "read_write" } else { "read" };
            let binding = BindingRole::Tensor(role).binding();
            writeln!(wgsl, "\n@group(0) @binding({binding}) var<storage, {access}> {role}: array<{element}>;")?;
        }
        for (role, slot) in self.tensors().filter(|(role, _)| *role != Role::State) {
            wgsl.push('\n');
            let is_sum = role.is_sum();
            if !self.writes(role) || is_sum {
                self.write_getter(wgsl, role, slot)?;
            }
            if self.writes(role) {
                self.write_setter(wgsl, role, slot)?;
            }
            if is_sum {
                writeln!(wgsl, "\nfn {role}_add(row: u32, position: u32, value: Unit) {{\n    var sum = value;")?;
                writeln!(wgsl, "    if (params.accumulate & 1u) != 0u {{")?;
                writeln!(wgsl, "        sum = unit_add(sum, {role}_unit({role}_load(row, position)));\n    }}")?;
                writeln!(wgsl, "    {role}_set(row, position, sum);\n}}")?;
            }
        }
        match self.unit {
            Unit::Pair => self.write_pairs(wgsl)?,
            Unit::Rows => self.write_rows(wgsl)?,
            _ => {}
        }
        if self.entry.walks() && self.column_sums.count() > 0 {
            self.write_column_sums(wgsl)?;
        }
        for role in [Role::Weight, Role::Bias, Role::Scale, Role::Shift] {
            self.write_factor(wgsl, role)?;
        }
        if let Some(grid) = &self.grid {
            self.write_offsets(wgsl, grid)?;
        }
        let absent = |role: &&Role| self.slot(**role).is_none();
        let nothing: &[Role] = match self.entry {
            Entry::Row | Entry::Merge if self.slot(Role::Moments).is_some() => &[],
            Entry::Row | Entry::Merge | Entry::NormalizeKnown => &[Role::Sum, Role::Mean, Role::Rstd],
            Entry::CausalRows => &[Role::Mean, Role::Rstd],
            Entry::Gradient | Entry::GradientColumns => &[Role::ResidualGradient],
            Entry::GradientConditions => &[Role::ScaleGradient, Role::ShiftGradient, Role::GateGradient],
            Entry::GradientChannelConditions => &[Role::ScaleGradient, Role::ShiftGradient],
            Entry::GradientChannels | Entry::GradientParameters => &[Role::WeightGradient, Role::BiasGradient],
            _ => &[],
        };
        for role in nothing.iter().filter(absent) {
            match role {
                Role::Mean | Role::Rstd => writeln!(wgsl, "\nfn {role}_set(row: u32, value: f32) {{}}")?,
                _ if role.is_sum() => writeln!(wgsl, "\nfn {role}_add(row: u32, position: u32, value: Unit) {{}}")?,
                _ => writeln!(wgsl, "\nfn {role}_set(row: u32, position: u32, value: Unit) {{}}")?,
            }
        }
        let measured = matches!(self.entry, Entry::Gradient | Entry::GradientSums | Entry::GradientMerge);
        if measured && !self.causal && self.slot(Role::Moments).is_none() && self.slot(Role::Mean).is_none() {
            writeln!(wgsl, "\nfn mean_get(row: u32) -> f32 {{\n    return 0.0;\n}}")?;
        }
        Ok(())
    }

    /// What weight, bias, scale or shift is where something is made of several of them: what they count as where they are absent.
    fn write_factor(&self, wgsl: &mut String, role: Role) -> std::fmt::Result {
        let condition = if role.is_condition() { "condition, " } else { "" };
        let arguments = if role.is_condition() { "condition: u32, row: u32" } else { "row: u32" };
        let value = match self.slot(role) {
            Some(_) => format!("{role}_unit({role}_load({condition}row, position))"),
            None => format!("unit_of({:?})", if role == Role::Weight { 1.0 } else { 0.0 }),
        };
        writeln!(wgsl, "\nfn {role}_at({arguments}, position: u32) -> Unit {{\n    return {value};\n}}")
    }

    /// Where rows, elements and parameters lie: units from the first one, parameters that elements share one by one.
    fn write_offsets(&self, wgsl: &mut String, grid: &Grid) -> std::fmt::Result {
        let unit = self.unit.elements();
        let mut write = |name: &str, counted: &str, dimensions: &[Dimension], stride: &dyn Fn(&Dimension) -> u32| {
            writeln!(wgsl, "\nfn {name}({counted}: u32) -> u32 {{\n    var rest = {counted};\n    var offset = 0u;")?;
            for (i, dimension) in dimensions.iter().enumerate().rev() {
                let of_elements = counted == "position" && i == dimensions.len() - 1;
                let size = if of_elements { dimension.size / unit } else { dimension.size };
                let stride = stride(dimension);
                if i == 0 {
                    writeln!(wgsl, "    offset += rest * {stride}u;")?;
                } else {
                    writeln!(wgsl, "    offset += rest % {size}u * {stride}u;\n    rest /= {size}u;")?;
                }
            }
            writeln!(wgsl, "    return offset;\n}}")
        };
        let in_units = |stride: u32| if stride == 1 { 1 } else { stride / unit };
        let of_parameter = |dimension: &Dimension| match self.is_shared(Role::Weight) {
            true => dimension.parameter_stride,
            false => in_units(dimension.parameter_stride),
        };
        write("row_offset", "row", grid.rows(), &|dimension| dimension.stride / unit)?;
        write("element_offset", "position", grid.elements(), &|dimension| in_units(dimension.stride))?;
        write("parameter_of_row", "row", grid.rows(), &of_parameter)?;
        write("parameter_of_element", "position", grid.elements(), &of_parameter)
    }

    /// The sums over rows: a unit of f32 at a time.
    fn write_column_sums(&self, wgsl: &mut String) -> std::fmt::Result {
        let binding = BindingRole::ColumnSums.binding();
        writeln!(wgsl, "\n@group(0) @binding({binding}) var<storage, read_write> column_sums: array<Quad>;\n")?;
        let (loaded, stored) = match self.unit {
            Unit::Octet => (
                "Unit(column_sums[2u * index], column_sums[2u * index + 1u])",
                "    column_sums[2u * index] = value.low;\n    column_sums[2u * index + 1u] = value.high;",
            ),
            _ => ("column_sums[index]", "    column_sums[index] = value;"),
        };
        writeln!(wgsl, "fn column_sum_load(index: u32) -> Unit {{\n    return {loaded};\n}}\n")?;
        writeln!(wgsl, "fn column_sum_set(index: u32, value: Unit) {{\n{stored}\n}}")
    }

    /// What lies in memory, in WGSL.
    fn element(&self, role: Role) -> &'static str {
        let Some(slot) = self.slot(role) else { return "Quad" };
        let is_shared = self.is_shared(role);
        match (slot.storage, self.unit) {
            // Of which one is a count.
            _ if role == Role::Moments => "u32",
            _ if role.words().is_some() => "f32",
            (StorageType::F32, _) if is_shared => "f32",
            _ if is_shared => "u32",
            (StorageType::F32, _) => "Quad",
            (_, Unit::Octet) => "vec4<u32>",
            (_, Unit::Vector | Unit::Rows) => "vec2<u32>",
            // Two elements share a word. They may belong to different invocations, or one of them to another tensor.
            _ if self.writes(role) || slot.place == Place::Shared => "atomic<u32>",
            _ => "u32",
        }
    }

    /// Four elements from two words in the named place; or one from half a word.
    fn unpacked(&self, storage: StorageType, words: &str) -> String {
        match storage {
            StorageType::F16 if self.unpack_f16 => format!("unpack_f16({words})"),
            StorageType::Bf16 if self.unit.is_vector() => format!("unpack_bf16({words})"),
            _ if self.unit.is_vector() => format!("decode_{storage}(unpack({words}))"),
            _ => format!("decode_{storage}({words})"),
        }
    }

    /// Two words from the four elements in the named place; or a word from one, of which the upper half counts.
    fn packed(&self, storage: StorageType, quad: &str) -> String {
        match storage {
            StorageType::F16 if self.pack_f16 => format!("pack_f16({quad})"),
            _ if self.unit.is_vector() => format!("pack(encode_{storage}({quad}))"),
            _ => format!("encode_{storage}({quad})"),
        }
    }

    /// The index of a unit.
    fn index(&self, role: Role) -> String {
        let parameter = match self.grid {
            None => "position",
            Some(_) if role.is_sum() => "parameter_of_element(position)",
            Some(_) => "parameter_of_row(row) + parameter_of_element(position)",
        };
        // Some of those that are never together share a place.
        let place = match role {
            Role::Moments => Role::State,
            Role::GradientSums => Role::Rstd,
            other => other,
        };
        let base = format!("params.{place}_base");
        match self.grid {
            _ if role.is_parameter() => format!("{base} + {parameter}"),
            _ if role.words().is_some() => format!("{base} + row * params.{place}_stride"),
            _ if role.is_sum() => format!("{base} + row * params.{role}_stride + {parameter}"),
            _ if role.is_condition() => format!("{base} + condition * params.{role}_stride + {parameter}"),
            Some(_) if self.unit == Unit::Rows => format!("{base} + (row_offset(row) + element_offset(position)) / 4u"),
            Some(_) => format!("{base} + row_offset(row) + element_offset(position)"),
            None => format!("{base} + row * params.{role}_stride + position"),
        }
    }

    /// What says where a unit lies.
    fn place_arguments(role: Role) -> &'static str {
        if role.is_condition() && !role.is_sum() { "condition: u32, row: u32" } else { "row: u32" }
    }

    /// Of a parameter that neighbouring elements share: one element, in all places of a unit.
    fn write_shared_getter(&self, wgsl: &mut String, role: Role, storage: StorageType) -> std::fmt::Result {
        let (index, arguments) = (self.index(role), Self::place_arguments(role));
        let value = match storage {
            StorageType::F32 => format!("{role}[index]"),
            _ => {
                format!("quad_first(decode_{storage}(QuadBits(({role}[index / 2u] >> (index % 2u * 16u)) & 0xffffu)))")
            }
        };
        let centre = if role == Role::Weight && self.zero_centred_weight { "1.0 + " } else { "" };
        writeln!(wgsl, "fn {role}_load({arguments}, position: u32) -> f32 {{")?;
        writeln!(wgsl, "    let index = {index};\n    return {centre}{value};\n}}\n")?;
        writeln!(wgsl, "fn {role}_unit(value: f32) -> Unit {{\n    return unit_of(value);\n}}")
    }

    fn write_getter(&self, wgsl: &mut String, role: Role, slot: Slot) -> std::fmt::Result {
        let (index, storage) = (self.index(role), slot.storage);
        if self.is_shared(role) {
            return self.write_shared_getter(wgsl, role, storage);
        }
        if role.is_statistic() {
            return writeln!(wgsl, "fn {role}_get(row: u32) -> f32 {{\n    return {role}[{index}];\n}}");
        }
        if let Some((vector, words)) = vector_of(role) {
            let words: Vec<_> = (0..words).map(|word| format!("{role}[first + {word}u]")).collect();
            writeln!(wgsl, "fn {role}_get(row: u32) -> {vector} {{\n    let first = {index};")?;
            return writeln!(wgsl, "    return {vector}({});\n}}", words.join(", "));
        }
        // What is loaded, and how it becomes quads.
        let (raw, loaded, quads) = match (storage, self.unit) {
            (StorageType::F32, Unit::Octet) => (
                "array<Quad, 2>",
                format!("array<Quad, 2>({role}[2u * index], {role}[2u * index + 1u])"),
                vec!["raw[0]".to_owned(), "raw[1]".to_owned()],
            ),
            (StorageType::F32, Unit::Vector | Unit::Rows | Unit::Pair | Unit::Scalar) => {
                ("Quad", format!("{role}[index]"), vec!["raw".to_owned()])
            }
            (_, Unit::Octet) => (
                "vec4<u32>",
                format!("{role}[index]"),
                vec![self.unpacked(storage, "raw.xy"), self.unpacked(storage, "raw.zw")],
            ),
            (_, Unit::Vector | Unit::Rows) => {
                ("vec2<u32>", format!("{role}[index]"), vec![self.unpacked(storage, "raw")])
            }
            (_, Unit::Pair | Unit::Scalar) => {
                let word = match self.element(role) {
                    "atomic<u32>" => format!("atomicLoad(&{role}[index / 2u])"),
                    _ => format!("{role}[index / 2u]"),
                };
                ("u32", format!("half_of({word}, index)"), vec![self.unpacked(storage, "raw")])
            }
        };
        let centre = if role == Role::Weight && self.zero_centred_weight { "1.0 + " } else { "" };
        let quads: Vec<_> = quads.into_iter().map(|quad| format!("{centre}{quad}")).collect();
        let unit = if quads.len() > 1 { format!("Unit({})", quads.join(", ")) } else { quads.concat() };
        // What is held as it is stored has a name.
        let alias = match role {
            Role::Input => Some("InputRaw"),
            Role::OutputGradient => Some("OutputGradientRaw"),
            _ => None,
        };
        if let Some(alias) = alias {
            writeln!(wgsl, "alias {alias} = {raw};\n")?;
        }
        let name = alias.unwrap_or(raw);
        writeln!(wgsl, "fn {role}_load({}, position: u32) -> {name} {{", Self::place_arguments(role))?;
        writeln!(wgsl, "    let index = {index};\n    return {loaded};\n}}\n")?;
        writeln!(wgsl, "fn {role}_unit(raw: {name}) -> Unit {{\n    return {unit};\n}}")
    }

    fn write_setter(&self, wgsl: &mut String, role: Role, slot: Slot) -> std::fmt::Result {
        let (index, storage) = (self.index(role), slot.storage);
        let target = if let Place::InPlaceOf(other) = slot.place { other } else { role };
        if let Some((vector, words)) = vector_of(role) {
            writeln!(wgsl, "fn {role}_set(row: u32, value: {vector}) {{\n    let first = {index};")?;
            for word in 0..words {
                writeln!(wgsl, "    {target}[first + {word}u] = value[{word}];")?;
            }
            return writeln!(wgsl, "}}");
        }
        let value = if role.is_statistic() { "value: f32" } else { "position: u32, value: Unit" };
        if storage.bytes() == 2 && !self.unit.is_vector() {
            writeln!(wgsl, "fn {role}_store_half(index: u32, bits: u32) {{")?;
            writeln!(wgsl, "    atomicAnd(&{target}[index / 2u], ~half_to(0xffff0000u, index));")?;
            writeln!(wgsl, "    atomicOr(&{target}[index / 2u], half_to(bits, index));\n}}\n")?;
        }
        writeln!(wgsl, "fn {role}_set(row: u32, {value}) {{\n    let index = {index};")?;
        let packed = |quad: &str| self.packed(storage, quad);
        match (storage, self.unit) {
            (StorageType::F32, Unit::Octet) if !role.is_statistic() => {
                writeln!(wgsl, "    {target}[2u * index] = value.low;\n    {target}[2u * index + 1u] = value.high;")?;
            }
            (StorageType::F32, _) => writeln!(wgsl, "    {target}[index] = value;")?,
            (_, Unit::Octet) => {
                let (low, high) = (packed("value.low"), packed("value.high"));
                writeln!(wgsl, "    {target}[index] = vec4<u32>({low}, {high});")?;
            }
            (_, Unit::Vector | Unit::Rows) => writeln!(wgsl, "    {target}[index] = {};", packed("value"))?,
            (_, Unit::Pair | Unit::Scalar) => writeln!(wgsl, "    {role}_store_half(index, {});", packed("value"))?,
        }
        writeln!(wgsl, "}}")
    }

    /// For each tensor that is written, a function that stores the elements of the first rows of four.
    fn write_rows(&self, wgsl: &mut String) -> std::fmt::Result {
        for role in [Role::Output, Role::Sum] {
            writeln!(wgsl, "\nfn {role}_set_rows(row: u32, position: u32, value: Unit, rows: u32) {{")?;
            if let Some(Slot { storage, place }) = self.slot(role) {
                let target = if let Place::InPlaceOf(other) = place { other } else { role };
                writeln!(wgsl, "    let index = {};\n    let old = {target}[index];", self.index(role))?;
                writeln!(wgsl, "    let has = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(rows);")?;
                match storage {
                    StorageType::F32 => writeln!(wgsl, "    {target}[index] = select(old, value, has);")?,
                    _ => {
                        writeln!(wgsl, "    let halves = select(vec4<u32>(0u), vec4<u32>(0xffff0000u), has);")?;
                        writeln!(wgsl, "    let mask = pack(halves);")?;
                        writeln!(
                            wgsl,
                            "    {target}[index] = (old & ~mask) | ({} & mask);",
                            self.packed(storage, "value")
                        )?;
                    }
                }
            }
            writeln!(wgsl, "}}")?;
        }
        Ok(())
    }

    /// For each tensor that is written, a function that stores two neighbours, and the place of a row's first element in its word.
    fn write_pairs(&self, wgsl: &mut String) -> std::fmt::Result {
        let written: &[Role] = match self.entry.is_backward() {
            false => &[Role::Output, Role::Sum],
            true => &[Role::InputGradient, Role::ResidualGradient],
        };
        let is_small = |role: &Role| self.slot(*role).is_some_and(|slot| slot.storage.bytes() == 2);
        let whole = written.iter().copied().find(is_small).unwrap_or(written[0]);
        writeln!(wgsl, "\n// 1 where the first element of a row of the {whole} is the upper half of its word.")?;
        writeln!(wgsl, "fn first_half(row: u32) -> u32 {{")?;
        writeln!(wgsl, "    return (params.{whole}_base + row * params.{whole}_stride) % 2u;\n}}")?;
        for &role in written {
            writeln!(wgsl, "\nfn {role}_set_pair(")?;
            writeln!(
                wgsl,
                "    row: u32, position: u32, first: Unit, second: Unit, has_first: bool, has_second: bool,"
            )?;
            writeln!(wgsl, ") {{")?;
            if let Some(Slot { storage, place }) = self.slot(role) {
                let target = if let Place::InPlaceOf(other) = place { other } else { role };
                writeln!(wgsl, "    let index = {};", self.index(role))?;
                if is_small(&role) {
                    let (first, second) = (self.packed(storage, "first"), self.packed(storage, "second"));
                    writeln!(wgsl, "    let low = {first};\n    let high = {second};")?;
                    // Pairs are words of the one, and of the other where that lies alike.
                    let alike = if role == whole { "" } else { " & (index % 2u == 0u)" };
                    writeln!(wgsl, "    if has_first & has_second{alike} {{")?;
                    writeln!(
                        wgsl,
                        "        atomicStore(&{target}[index / 2u], half_to(low, 0u) | half_to(high, 1u));"
                    )?;
                    writeln!(wgsl, "        return;\n    }}")?;
                    if role == whole {
                        // One of the two at most.
                        let half = format!("{role}_store_half(index + u32(has_second), select(low, high, has_second))");
                        writeln!(wgsl, "    if has_first | has_second {{\n        {half};\n    }}")?;
                    } else {
                        writeln!(wgsl, "    if has_first {{\n        {role}_store_half(index, low);\n    }}")?;
                        writeln!(wgsl, "    if has_second {{\n        {role}_store_half(index + 1u, high);\n    }}")?;
                    }
                } else {
                    writeln!(wgsl, "    if has_first {{\n        {target}[index] = first;\n    }}")?;
                    writeln!(wgsl, "    if has_second {{\n        {target}[index + 1u] = second;\n    }}")?;
                }
            }
            writeln!(wgsl, "}}")?;
        }
        Ok(())
    }

    fn fragments(&self) -> Vec<&'static str> {
        let quad = match self.unit {
            Unit::Octet | Unit::Vector | Unit::Rows => include_str!("../../shaders/unit/vector.wgsl"),
            Unit::Pair | Unit::Scalar => include_str!("../../shaders/unit/scalar.wgsl"),
        };
        let unit = match self.unit.quads() {
            1 => include_str!("../../shaders/unit/one.wgsl"),
            _ => include_str!("../../shaders/unit/two.wgsl"),
        };
        let mut fragments = vec![include_str!("../../shaders/params.wgsl"), quad, unit];
        for (storage, fragment) in [
            (StorageType::F16, include_str!("../../shaders/storage/f16.wgsl")),
            (StorageType::Bf16, include_str!("../../shaders/storage/bf16.wgsl")),
        ] {
            if self.tensors().any(|(_, slot)| slot.storage == storage) {
                fragments.push(fragment);
                if storage == StorageType::Bf16 && self.unit.is_vector() {
                    fragments.push(include_str!("../../shaders/storage/bf16_vector.wgsl"));
                }
            }
        }
        if self.unpack_f16 || self.pack_f16 {
            fragments.push(match self.unit {
                Unit::Octet | Unit::Vector | Unit::Rows => include_str!("../../shaders/storage/f16_native.wgsl"),
                Unit::Pair | Unit::Scalar => include_str!("../../shaders/storage/f16_native_scalar.wgsl"),
            });
        }
        fragments.extend([
            include_str!("../../shaders/numbers.wgsl"),
            include_str!("../../shaders/sums.wgsl"),
            include_str!("../../shaders/place.wgsl"),
            match self.rows_first {
                false => include_str!("../../shaders/place/elements_first.wgsl"),
                true => include_str!("../../shaders/place/rows_first.wgsl"),
            },
        ]);
        if self.slot(Role::Input).is_some() {
            fragments.extend(self.span_fragments());
        }
        match self.entry {
            entry if entry.scans() => fragments.extend(self.scan_fragments()),
            Entry::Row | Entry::Partial | Entry::Merge | Entry::NormalizeKnown => {
                fragments.extend(self.forward_fragments());
            }
            _ => fragments.extend(self.backward_fragments()),
        }
        fragments.push(match self.entry {
            Entry::Row if self.unit == Unit::Rows => include_str!("../../shaders/beside.wgsl"),
            Entry::Row | Entry::Merge => include_str!("../../shaders/row.wgsl"),
            Entry::Partial => include_str!("../../shaders/partial.wgsl"),
            Entry::CausalTiles => include_str!("../../shaders/causal_tiles.wgsl"),
            Entry::CausalCarries => include_str!("../../shaders/causal_carries.wgsl"),
            Entry::CausalRows => include_str!("../../shaders/causal_rows.wgsl"),
            Entry::NormalizeKnown => include_str!("../../shaders/normalize_known.wgsl"),
            Entry::CausalGradientTiles => include_str!("../../shaders/causal_gradient_tiles.wgsl"),
            Entry::CausalGradientCarries => include_str!("../../shaders/causal_gradient_carries.wgsl"),
            Entry::CausalGradientRows => include_str!("../../shaders/causal_gradient_rows.wgsl"),
            Entry::Gradient => include_str!("../../shaders/gradient.wgsl"),
            Entry::GradientSums => include_str!("../../shaders/gradient_sums.wgsl"),
            Entry::GradientMerge => include_str!("../../shaders/gradient_merge.wgsl"),
            Entry::GradientCoefficients => include_str!("../../shaders/gradient_coefficients.wgsl"),
            Entry::GradientColumns => include_str!("../../shaders/gradient_columns.wgsl"),
            Entry::GradientConditions => include_str!("../../shaders/gradient_conditions.wgsl"),
            Entry::GradientChannelSums => include_str!("../../shaders/gradient_channel_sums.wgsl"),
            Entry::GradientChannelConditions => include_str!("../../shaders/gradient_channel_conditions.wgsl"),
            Entry::GradientChannels => include_str!("../../shaders/gradient_channels.wgsl"),
            Entry::GradientParameters => include_str!("../../shaders/gradient_parameters.wgsl"),
        });
        if self.uses_subgroups() {
            fragments.push(include_str!("../../shaders/reduce/butterfly.wgsl"));
        }
        fragments.push(match self.reduction {
            Reduction::Lane => include_str!("../../shaders/reduce/lane.wgsl"),
            Reduction::Subgroup => include_str!("../../shaders/reduce/subgroup.wgsl"),
            Reduction::SubgroupThenWorkgroup => include_str!("../../shaders/reduce/subgroup_workgroup.wgsl"),
            Reduction::Workgroup => include_str!("../../shaders/reduce/workgroup.wgsl"),
        });
        fragments
    }

    /// What a span is, and what lies in it.
    fn span_fragments(&self) -> [&'static str; 3] {
        // There is no gate without a residual.
        let source = match (self.slot(Role::Residual), self.slot(Role::Gate)) {
            (None, _) => include_str!("../../shaders/source/input.wgsl"),
            (Some(_), None) => include_str!("../../shaders/source/residual.wgsl"),
            (Some(_), Some(_)) => include_str!("../../shaders/source/gated.wgsl"),
        };
        let turns = match self.unit {
            Unit::Pair => include_str!("../../shaders/turns/pairs.wgsl"),
            Unit::Octet | Unit::Vector | Unit::Scalar | Unit::Rows => include_str!("../../shaders/turns/straight.wgsl"),
        };
        [source, include_str!("../../shaders/span.wgsl"), turns]
    }

    fn scan_fragments(&self) -> Vec<&'static str> {
        let mut fragments =
            vec![include_str!("../../shaders/deviation.wgsl"), include_str!("../../shaders/causal/scan.wgsl")];
        if !self.entry.is_backward() {
            fragments.push(include_str!("../../shaders/causal/prefix.wgsl"));
            if self.entry != Entry::CausalCarries {
                fragments.push(include_str!("../../shaders/causal/rows.wgsl"));
            } else {
                fragments.push(include_str!("../../shaders/causal/state.wgsl"));
            }
            fragments.push(match self.carries {
                true => include_str!("../../shaders/causal/carries.wgsl"),
                false => include_str!("../../shaders/causal/carries_none.wgsl"),
            });
            return fragments;
        }
        fragments.push(include_str!("../../shaders/causal/suffix.wgsl"));
        if self.entry != Entry::CausalGradientCarries {
            fragments.push(include_str!("../../shaders/causal/gradient_rows.wgsl"));
            fragments.push(match self.normalization {
                Normalization::LayerNorm => include_str!("../../shaders/causal/gradient_mean.wgsl"),
                Normalization::RmsNorm => include_str!("../../shaders/causal/gradient_no_mean.wgsl"),
            });
        }
        fragments.push(match self.carries {
            true => include_str!("../../shaders/causal/gradient_carries.wgsl"),
            false => include_str!("../../shaders/causal/gradient_carries_none.wgsl"),
        });
        fragments
    }

    fn affine_fragment(&self) -> &'static str {
        // There is no bias without a weight.
        match (self.slot(Role::Weight), self.slot(Role::Bias)) {
            _ if self.is_modulated() => match self.modulation {
                Modulation::Adaptive => include_str!("../../shaders/affine/adaptive.wgsl"),
                Modulation::Conditional => include_str!("../../shaders/affine/conditional.wgsl"),
            },
            (None, _) => include_str!("../../shaders/affine/none.wgsl"),
            (Some(_), None) => include_str!("../../shaders/affine/weight.wgsl"),
            (Some(_), Some(_)) => include_str!("../../shaders/affine/weight_bias.wgsl"),
        }
    }

    fn forward_fragments(&self) -> Vec<&'static str> {
        if self.unit == Unit::Rows {
            return vec![
                include_str!("../../shaders/deviation.wgsl"),
                match self.normalization {
                    Normalization::LayerNorm => include_str!("../../shaders/beside/layer_norm.wgsl"),
                    Normalization::RmsNorm => include_str!("../../shaders/beside/rms_norm.wgsl"),
                },
                self.affine_fragment(),
            ];
        }
        let mut fragments = vec![
            include_str!("../../shaders/deviation.wgsl"),
            include_str!("../../shaders/moments.wgsl"),
            match self.normalization {
                Normalization::LayerNorm => include_str!("../../shaders/measure/layer_norm.wgsl"),
                Normalization::RmsNorm => include_str!("../../shaders/measure/rms_norm.wgsl"),
            },
            include_str!("../../shaders/steps.wgsl"),
            include_str!("../../shaders/memory.wgsl"),
        ];
        if self.access != Access::Reread {
            fragments.push(include_str!("../../shaders/access/registers.wgsl"));
        }
        fragments.push(match self.access {
            Access::Held => include_str!("../../shaders/access/held.wgsl"),
            Access::Partly { .. } => include_str!("../../shaders/access/partly.wgsl"),
            Access::Reread => include_str!("../../shaders/access/reread.wgsl"),
        });
        match self.entry {
            Entry::Merge => fragments.push(include_str!("../../shaders/merge.wgsl")),
            Entry::NormalizeKnown => {}
            _ => {
                fragments.extend([include_str!("../../shaders/measure.wgsl"), include_str!("../../shaders/rare.wgsl")])
            }
        }
        if self.entry == Entry::Partial {
            return fragments;
        }
        fragments.push(include_str!("../../shaders/scalings.wgsl"));
        fragments.push(match self.slot(Role::Moments) {
            Some(_) if self.writes(Role::Moments) => include_str!("../../shaders/statistics/moments.wgsl"),
            _ => include_str!("../../shaders/statistics/mean_rstd.wgsl"),
        });
        if self.entry == Entry::NormalizeKnown {
            fragments.extend(match self.causal {
                true => vec![include_str!("../../shaders/known/scalings.wgsl")],
                false => vec![
                    include_str!("../../shaders/moments/stored.wgsl"),
                    include_str!("../../shaders/known/moments.wgsl"),
                ],
            });
        }
        if self.slot(Role::Output).is_none() {
            fragments.push(include_str!("../../shaders/normalize/none.wgsl"));
            return fragments;
        }
        let write = match self.unit {
            Unit::Pair => include_str!("../../shaders/normalize/pairs.wgsl"),
            Unit::Octet | Unit::Vector | Unit::Scalar | Unit::Rows => {
                include_str!("../../shaders/normalize/units.wgsl")
            }
        };
        fragments.extend([self.affine_fragment(), include_str!("../../shaders/normalize.wgsl"), write]);
        fragments.push(match self.access {
            Access::Held => include_str!("../../shaders/normalize/held.wgsl"),
            Access::Partly { .. } => include_str!("../../shaders/normalize/partly.wgsl"),
            Access::Reread => include_str!("../../shaders/normalize/reread.wgsl"),
        });
        if !matches!(self.access, Access::Partly { .. }) {
            fragments.push(include_str!("../../shaders/normalize/several.wgsl"));
        }
        fragments
    }

    fn backward_fragments(&self) -> Vec<&'static str> {
        if matches!(self.entry, Entry::GradientChannelConditions | Entry::GradientChannels) {
            return Vec::new();
        }
        // Of which mean and rstd come.
        let given = [
            include_str!("../../shaders/deviation.wgsl"),
            include_str!("../../shaders/moments/stored.wgsl"),
            include_str!("../../shaders/gradient/known.wgsl"),
        ];
        if self.entry == Entry::GradientCoefficients {
            let row = include_str!("../../shaders/gradient/row.wgsl");
            return [&given[..], &[row, include_str!("../../shaders/gradient/coefficients.wgsl")]].concat();
        }
        if self.entry.adds_up() {
            let quad = match self.unit.is_vector() {
                true => include_str!("../../shaders/gradient/quad_vector.wgsl"),
                false => include_str!("../../shaders/gradient/quad_scalar.wgsl"),
            };
            return vec![quad, include_str!("../../shaders/gradient/walk_sums.wgsl")];
        }
        let mut fragments = vec![
            include_str!("../../shaders/gradient/row.wgsl"),
            match self.normalization {
                Normalization::LayerNorm => include_str!("../../shaders/gradient/layer_norm.wgsl"),
                Normalization::RmsNorm => include_str!("../../shaders/gradient/rms_norm.wgsl"),
            },
        ];
        let of_parts = self.slot(Role::Moments).is_some();
        if of_parts {
            fragments.extend(given);
        }
        let of_row = match of_parts {
            true => &[include_str!("../../shaders/gradient/row_part.wgsl")][..],
            false => &[
                include_str!("../../shaders/gradient/coefficients.wgsl"),
                include_str!("../../shaders/gradient/row_own.wgsl"),
            ],
        };
        if self.entry == Entry::GradientMerge {
            fragments.extend(of_row);
            return fragments;
        }
        fragments.push(include_str!("../../shaders/gradient/arithmetic.wgsl"));
        fragments.push(match self.normalization {
            Normalization::LayerNorm => include_str!("../../shaders/gradient/mean.wgsl"),
            Normalization::RmsNorm => include_str!("../../shaders/gradient/no_mean.wgsl"),
        });
        let factor = match (self.slot(Role::Scale), self.modulation) {
            (None, _) => include_str!("../../shaders/gradient/factor_weight.wgsl"),
            (Some(_), Modulation::Adaptive) => include_str!("../../shaders/gradient/factor_adaptive.wgsl"),
            (Some(_), Modulation::Conditional) => include_str!("../../shaders/gradient/factor_conditional.wgsl"),
        };
        match (self.slot(Role::Weight).or(self.slot(Role::Scale)), self.entry) {
            (None, _) => fragments.push(include_str!("../../shaders/gradient/factor_none.wgsl")),
            // So few turns are in its walk that it has registers for it.
            (Some(_), Entry::GradientColumns) if !self.grid.as_ref().is_some_and(Grid::has_parameters_by_row) => {
                fragments.extend([factor, include_str!("../../shaders/gradient/factor_held.wgsl")]);
            }
            (Some(_), _) => fragments.extend([factor, include_str!("../../shaders/gradient/factor_reread.wgsl")]),
        }
        if matches!(self.entry, Entry::GradientSums | Entry::GradientChannelSums) {
            fragments.push(include_str!("../../shaders/steps.wgsl"));
            fragments.push(include_str!("../../shaders/gradient/span_sums.wgsl"));
        }
        if self.entry == Entry::GradientChannelSums {
            return fragments;
        }
        if self.entry == Entry::GradientSums {
            if self.causal {
                fragments.push(include_str!("../../shaders/gradient/causal_statistics.wgsl"));
            }
            match self.segments() {
                1 if !self.causal => {
                    fragments.extend(of_row);
                    fragments.push(include_str!("../../shaders/gradient/row_whole.wgsl"));
                }
                _ => fragments.push(include_str!("../../shaders/gradient/row_segment.wgsl")),
            }
            return fragments;
        }
        fragments.push(include_str!("../../shaders/gradient/walk.wgsl"));
        fragments.push(match self.entry {
            Entry::Gradient => include_str!("../../shaders/gradient/walk_together.wgsl"),
            _ => include_str!("../../shaders/gradient/walk_alone.wgsl"),
        });
        fragments.push(match self.slot(Role::SumGradient) {
            None => include_str!("../../shaders/gradient/sum_none.wgsl"),
            Some(_) => include_str!("../../shaders/gradient/sum_added.wgsl"),
        });
        fragments.push(match self.column_sums.count() {
            0 => include_str!("../../shaders/gradient/column_sums_none.wgsl"),
            _ => include_str!("../../shaders/gradient/column_sums.wgsl"),
        });
        fragments.push(match self.slot(Role::Gate) {
            None => include_str!("../../shaders/gradient/gate_none.wgsl"),
            Some(_) => include_str!("../../shaders/gradient/gate.wgsl"),
        });
        fragments.push(match self.unit {
            Unit::Pair => include_str!("../../shaders/gradient/pairs.wgsl"),
            Unit::Octet | Unit::Vector | Unit::Scalar | Unit::Rows => include_str!("../../shaders/gradient/units.wgsl"),
        });
        fragments
    }
}

/// What WGSL holds the words of a tensor in that has several for each row, but no elements, and how many there are.
fn vector_of(role: Role) -> Option<(&'static str, u32)> {
    match role {
        Role::Moments => Some(("vec4<u32>", 4)),
        Role::GradientSums => Some(("vec2<f32>", 2)),
        _ => None,
    }
}
