//! Whether the lanes of a subgroup surely stand together at each subgroup operation, by naga's IR.
//!
//! GPUs run lanes apart where they take different ways, and nothing in WGSL or SPIR-V says for sure that they meet again. So a
//! subgroup operation may neither lie within nor follow control flow that differs from lane to lane, unless a barrier has
//! brought the lanes together since, and all of them came to it.
//!
//! Calls are followed with what is known of their arguments. What variables hold is a matter of the whole program, not of a
//! place in it: one that differs from lane to lane anywhere does so everywhere. Variables of a function are looked at for each
//! way that leads to it through calls.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use std::collections::{HashMap, HashSet};

use naga::{
    AddressSpace, Binding, Block, BuiltIn, CollectiveOperation, EntryPoint, Expression, Function, GatherMode,
    GlobalVariable, Handle, LocalVariable, Module, Span, Statement, StorageAccess, TypeInner,
};

/// Says where lanes may be apart in a subgroup operation, or not all come to a barrier, if that may be in any entry point.
pub fn check(module: &Module, source: &str) -> Result<(), String> {
    module.entry_points.iter().try_for_each(|entry| check_entry(module, source, entry))
}

fn check_entry(module: &Module, source: &str, entry: &EntryPoint) -> Result<(), String> {
    let mut analysis = Analysis { module, source, varying: HashSet::new(), paths: HashMap::new(), problem: None };
    let arguments: Vec<Argument> = entry
        .function
        .arguments
        .iter()
        .map(|argument| {
            let varies = match &argument.binding {
                Some(binding) => !is_uniform(binding),
                None => match &module.types[argument.ty].inner {
                    TypeInner::Struct { members, .. } => {
                        !members.iter().all(|member| member.binding.as_ref().is_some_and(is_uniform))
                    }
                    _ => true,
                },
            };
            Argument { varies, root: None }
        })
        .collect();
    // What a variable holds may come from a statement further down: until nothing new turns up.
    loop {
        let known = analysis.varying.len();
        analysis.problem = None;
        analysis.call(&entry.function, &entry.name, 0, &arguments, Flow::default(), None);
        if known == analysis.varying.len() {
            return analysis.problem.map_or(Ok(()), Err);
        }
    }
}

fn is_uniform(binding: &Binding) -> bool {
    matches!(
        binding,
        Binding::BuiltIn(
            BuiltIn::WorkGroupId
                | BuiltIn::WorkGroupSize
                | BuiltIn::NumWorkGroups
                | BuiltIn::NumSubgroups
                | BuiltIn::SubgroupSize
        )
    )
}

/// A way through calls that leads to a function; that of the entry point is 0.
type Path = usize;

/// A variable that invocations have of their own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Variable {
    Private(Handle<GlobalVariable>),
    Local(Path, Handle<LocalVariable>),
}

/// What a function is given.
#[derive(Clone, Copy, Debug)]
struct Argument {
    /// The value differs from lane to lane, or the place within a variable that it points to.
    varies: bool,
    /// The variable that it points to.
    root: Option<Variable>,
}

/// Why lanes are apart: at this place they part.
#[derive(Clone, Copy, Debug)]
struct Why<'f> {
    /// The function.
    name: &'f str,
    span: Span,
}

/// Where the lanes stand that come to a place.
#[derive(Clone, Copy, Debug, Default)]
struct Flow<'f> {
    /// Why they may be apart.
    parted: Option<Why<'f>>,
}

/// Where the lanes stand that come from here or from there; none if nobody comes.
fn merged<'f>(a: Option<Flow<'f>>, b: Option<Flow<'f>>) -> Option<Flow<'f>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Flow { parted: a.parted.or(b.parted) }),
        (a, b) => a.or(b),
    }
}

/// A loop or a switch around the statement at hand.
struct Scope<'f> {
    is_loop: bool,
    /// Where those stand that have left it.
    exits: Option<Flow<'f>>,
    /// Where those stand that have gone on to the continuing block.
    continues: Option<Flow<'f>>,
    /// Why only some have left it.
    left: Option<Why<'f>>,
    /// Why only some have gone on to the continuing block.
    skipped: Option<Why<'f>>,
}

impl Scope<'_> {
    fn new(is_loop: bool) -> Self {
        Self { is_loop, exits: None, continues: None, left: None, skipped: None }
    }
}

/// A function at one of its calls.
struct Frame<'c, 'f> {
    function: &'f Function,
    name: &'f str,
    path: Path,
    arguments: &'c [Argument],
    /// Results of calls and the like that differ from lane to lane.
    results: HashSet<Handle<Expression>>,
    scopes: Vec<Scope<'f>>,
    /// Where those stand that have returned.
    exits: Option<Flow<'f>>,
    /// Why only some have returned.
    returned: Option<Why<'f>>,
    returns_varying: bool,
    /// Why the call lies in control flow that differs from lane to lane.
    around: Option<Why<'f>>,
}

impl<'f> Frame<'_, 'f> {
    /// Why not all lanes come to the statement at hand: it lies in a branch that they take differently, or some have left.
    fn partial(&self, within: Option<Why<'f>>) -> Option<Why<'f>> {
        let mut left = self.scopes.iter().rev().flat_map(|scope| [scope.left, scope.skipped]).chain([self.returned]);
        within.or_else(|| left.find_map(|why| why)).or(self.around)
    }
}

struct Analysis<'a> {
    module: &'a Module,
    source: &'a str,
    /// The variables that differ from lane to lane.
    varying: HashSet<Variable>,
    /// The paths by those that they go on from, and where the statement that calls lies in memory.
    paths: HashMap<(Path, usize), Path>,
    problem: Option<String>,
}

impl<'a> Analysis<'a> {
    /// The line where something lies, in words.
    fn place(&self, span: Span) -> String {
        let before = span.to_range().and_then(|range| self.source.get(..range.start));
        let Some(before) = before else { return "an unknown line".to_owned() };
        let number = before.matches('\n').count();
        let text = self.source.lines().nth(number).unwrap_or_default().trim();
        format!("line {}, `{text}`", number + 1)
    }

    fn refuse(&mut self, what: &str, frame: &Frame<'_, '_>, span: Span, why: &str) {
        if self.problem.is_none() {
            self.problem = Some(format!("{what} in {}, {}: {why}", frame.name, self.place(span)));
        }
    }

    fn refuse_apart(&mut self, what: &str, frame: &Frame<'_, '_>, span: Span, why: Why<'_>) {
        self.refuse(what, frame, span, &format!("lanes part in {} at {}", why.name, self.place(why.span)));
    }

    /// Why lanes part at a condition, if they do. The span is that of the statement.
    fn parts(&self, frame: &Frame<'_, 'a>, condition: Handle<Expression>, span: Span) -> Option<Why<'a>> {
        if !self.varies(frame, condition) {
            return None;
        }
        let own = frame.function.expressions.get_span(condition);
        Some(Why { name: frame.name, span: if own.is_defined() { own } else { span } })
    }

    /// Where lanes stand afterwards, and whether the result differs from lane to lane.
    fn call(
        &mut self,
        function: &'a Function,
        name: &'a str,
        path: Path,
        arguments: &[Argument],
        flow: Flow<'a>,
        around: Option<Why<'a>>,
    ) -> (Option<Flow<'a>>, bool) {
        let mut frame = Frame {
            function,
            name,
            path,
            arguments,
            results: HashSet::new(),
            scopes: Vec::new(),
            exits: None,
            returned: None,
            returns_varying: false,
            around,
        };
        let end = self.block(&mut frame, &function.body, Some(flow), None);
        let mut after = merged(end, frame.exits.take());
        if let Some(after) = &mut after {
            after.parted = after.parted.or(frame.returned);
        }
        (after, frame.returns_varying)
    }

    /// `within` says why the block lies in control flow that differs from lane to lane, within the function.
    fn block(
        &mut self,
        frame: &mut Frame<'_, 'a>,
        block: &'a Block,
        mut flow: Option<Flow<'a>>,
        within: Option<Why<'a>>,
    ) -> Option<Flow<'a>> {
        for (statement, span) in block.span_iter() {
            // Nothing that follows is ever run.
            flow = Some(self.statement(frame, statement, *span, flow?, within)?);
        }
        flow
    }

    fn statement(
        &mut self,
        frame: &mut Frame<'_, 'a>,
        statement: &'a Statement,
        span: Span,
        mut flow: Flow<'a>,
        within: Option<Why<'a>>,
    ) -> Option<Flow<'a>> {
        match statement {
            Statement::Block(block) => return self.block(frame, block, Some(flow), within),
            Statement::If { condition, accept, reject } => {
                let why = self.parts(frame, *condition, span);
                let inside = why.or(within);
                let a = self.block(frame, accept, Some(flow), inside);
                let b = self.block(frame, reject, Some(flow), inside);
                let mut after = merged(a, b)?;
                after.parted = after.parted.or(why);
                return Some(after);
            }
            Statement::Switch { selector, cases } => {
                let why = self.parts(frame, *selector, span);
                let inside = why.or(within);
                frame.scopes.push(Scope::new(false));
                let (mut last, mut after): (Option<Flow<'a>>, Option<Flow<'a>>) = (None, None);
                let mut left: Option<Why<'a>> = None;
                for case in cases {
                    let begin = merged(Some(flow), last.take());
                    let end = self.block(frame, &case.body, begin, inside);
                    if case.fall_through {
                        last = end;
                    } else {
                        after = merged(after, end);
                    }
                    // Who leaves one case is not missed in the next one.
                    let scope = frame.scopes.last_mut().expect("the switch");
                    left = left.or(scope.left.take());
                }
                let scope = frame.scopes.pop().expect("the switch");
                let mut after = merged(merged(after, last), scope.exits)?;
                after.parted = after.parted.or(why).or(left);
                return Some(after);
            }
            Statement::Loop { body, continuing, break_if } => {
                frame.scopes.push(Scope::new(true));
                let mut begin = Some(flow);
                // Where the first turn ends is where the second one begins.
                for _ in 0..2 {
                    let end = self.block(frame, body, begin, within);
                    let scope = frame.scopes.last_mut().expect("the loop");
                    // Lanes that skipped the rest of the body come to the continuing block too.
                    let skipped = scope.skipped.take();
                    let mut middle = merged(end, scope.continues.take());
                    if let Some(middle) = &mut middle {
                        middle.parted = middle.parted.or(skipped);
                    }
                    let end = self.block(frame, continuing, middle, within);
                    if let Some(condition) = *break_if {
                        let why = self.parts(frame, condition, span);
                        let scope = frame.scopes.last_mut().expect("the loop");
                        scope.exits = merged(scope.exits, end);
                        scope.left = scope.left.or(why);
                    }
                    begin = merged(begin, end);
                }
                let scope = frame.scopes.pop().expect("the loop");
                let mut after = scope.exits?;
                after.parted = after.parted.or(scope.left);
                return Some(after);
            }
            Statement::Break => {
                let why = frame.partial(within);
                let scope = frame.scopes.last_mut().expect("a loop or a switch");
                scope.exits = merged(scope.exits, Some(flow));
                scope.left = scope.left.or(why);
                return None;
            }
            Statement::Continue => {
                let why = frame.partial(within);
                let scope = frame.scopes.iter_mut().rev().find(|scope| scope.is_loop).expect("a loop");
                scope.continues = merged(scope.continues, Some(flow));
                scope.skipped = scope.skipped.or(why);
                return None;
            }
            Statement::Return { value } => {
                let why = frame.partial(within);
                // Of lanes that return at different places, each place may give another value.
                frame.returns_varying |= why.is_some() || value.is_some_and(|value| self.varies(frame, value));
                frame.exits = merged(frame.exits, Some(flow));
                frame.returned = frame.returned.or(why);
                return None;
            }
            Statement::Kill => return None,
            Statement::ControlBarrier(_) | Statement::WorkGroupUniformLoad { .. } => {
                if let Some(why) = frame.partial(within) {
                    self.refuse_apart("not all lanes may come to a barrier", frame, span, why);
                }
                flow.parted = None;
            }
            Statement::Store { pointer, value } => {
                let is_partial = frame.partial(within).is_some();
                if is_partial || self.varies(frame, *value) || self.place_varies(frame, *pointer) {
                    self.mark(frame, *pointer);
                }
            }
            Statement::Call { function, arguments, result } => {
                let key = (frame.path, std::ptr::from_ref(statement) as usize);
                let next = self.paths.len() + 1;
                let path = *self.paths.entry(key).or_insert(next);
                let given: Vec<Argument> = arguments.iter().map(|&it| self.argument(frame, it)).collect();
                let around = frame.partial(within);
                let callee = &self.module.functions[*function];
                let name = callee.name.as_deref().unwrap_or("a function without a name");
                let (after, varies) = self.call(callee, name, path, &given, flow, around);
                if let Some(result) = result.filter(|_| varies) {
                    frame.results.insert(result);
                }
                return after;
            }
            Statement::SubgroupBallot { .. } => self.together(frame, span, flow, within),
            Statement::SubgroupGather { mode, result, .. } => {
                self.together(frame, span, flow, within);
                if !matches!(mode, GatherMode::BroadcastFirst | GatherMode::Broadcast(_)) {
                    frame.results.insert(*result);
                }
            }
            Statement::SubgroupCollectiveOperation { collective_op, result, .. } => {
                self.together(frame, span, flow, within);
                if *collective_op != CollectiveOperation::Reduce {
                    frame.results.insert(*result);
                }
            }
            Statement::Emit(_) | Statement::MemoryBarrier(_) | Statement::Atomic { .. } => {}
            other => self.refuse("a statement that this check does not know", frame, span, &format!("{other:?}")),
        }
        Some(flow)
    }

    fn together(&mut self, frame: &Frame<'_, 'a>, span: Span, flow: Flow<'a>, within: Option<Why<'a>>) {
        if let Some(why) = frame.partial(within) {
            self.refuse_apart("not all lanes may come to a subgroup operation", frame, span, why);
        } else if let Some(why) = flow.parted {
            self.refuse_apart("lanes may be apart in a subgroup operation", frame, span, why);
        }
    }

    fn argument(&self, frame: &Frame<'_, '_>, handle: Handle<Expression>) -> Argument {
        let root = self.root(frame, handle);
        let varies = if root.is_some() { self.place_varies(frame, handle) } else { self.varies(frame, handle) };
        Argument { varies, root }
    }

    /// The variable of this invocation that a pointer points into.
    fn root(&self, frame: &Frame<'_, '_>, pointer: Handle<Expression>) -> Option<Variable> {
        match frame.function.expressions[pointer] {
            Expression::GlobalVariable(variable) => {
                let is_private = self.module.global_variables[variable].space == AddressSpace::Private;
                is_private.then_some(Variable::Private(variable))
            }
            Expression::LocalVariable(variable) => Some(Variable::Local(frame.path, variable)),
            Expression::FunctionArgument(index) => frame.arguments[index as usize].root,
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.root(frame, base),
            _ => None,
        }
    }

    /// Whether lanes point to different places of a variable.
    fn place_varies(&self, frame: &Frame<'_, '_>, pointer: Handle<Expression>) -> bool {
        match frame.function.expressions[pointer] {
            Expression::FunctionArgument(index) => frame.arguments[index as usize].varies,
            Expression::Access { base, index } => self.place_varies(frame, base) || self.varies(frame, index),
            Expression::AccessIndex { base, .. } => self.place_varies(frame, base),
            _ => false,
        }
    }

    /// From now on the variable behind a pointer differs from lane to lane.
    fn mark(&mut self, frame: &Frame<'_, '_>, pointer: Handle<Expression>) {
        if let Some(variable) = self.root(frame, pointer) {
            self.varying.insert(variable);
        }
    }

    /// Whether a value differs from lane to lane; of a pointer, whether what is read through it does.
    fn varies(&self, frame: &Frame<'_, '_>, handle: Handle<Expression>) -> bool {
        let of = |handle: &Handle<Expression>| self.varies(frame, *handle);
        match &frame.function.expressions[handle] {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::Override(_)
            | Expression::ZeroValue(_)
            | Expression::ArrayLength(_)
            | Expression::WorkGroupUniformLoadResult { .. }
            | Expression::SubgroupBallotResult => false,
            Expression::FunctionArgument(index) => {
                let argument = &frame.arguments[*index as usize];
                argument.varies || argument.root.is_some_and(|root| self.varying.contains(&root))
            }
            Expression::GlobalVariable(variable) => match self.module.global_variables[*variable].space {
                AddressSpace::Uniform | AddressSpace::Immediate => false,
                AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
                AddressSpace::Private => self.varying.contains(&Variable::Private(*variable)),
                _ => true,
            },
            Expression::LocalVariable(variable) => self.varying.contains(&Variable::Local(frame.path, *variable)),
            Expression::Compose { components, .. } => components.iter().any(of),
            Expression::Access { base, index } => of(base) || of(index),
            Expression::AccessIndex { base: operand, .. }
            | Expression::Splat { value: operand, .. }
            | Expression::Swizzle { vector: operand, .. }
            | Expression::Load { pointer: operand }
            | Expression::Unary { expr: operand, .. }
            | Expression::As { expr: operand, .. }
            | Expression::Relational { argument: operand, .. } => of(operand),
            Expression::Binary { left, right, .. } => of(left) || of(right),
            Expression::Select { condition, accept, reject } => of(condition) || of(accept) || of(reject),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                of(arg) || [arg1, arg2, arg3].into_iter().flatten().any(of)
            }
            Expression::CallResult(_) | Expression::SubgroupOperationResult { .. } => frame.results.contains(&handle),
            // Also the results of atomic operations.
            _ => true,
        }
    }
}

/// Kernels that show one rule each.
pub fn self_test() {
    const HEAD: &str = "
        @group(0) @binding(0) var<uniform> size: u32;
        @group(0) @binding(1) var<storage, read> input: array<u32>;
        @group(0) @binding(2) var<storage, read_write> output: array<u32>;
        var<workgroup> slots: array<u32, 64>;
        var<workgroup> flag: u32;
        var<workgroup> votes: atomic<u32>;
        var<private> own: u32;
        fn helper(x: u32) -> u32 { if x > 3u { return 1u; } return 2u; }
        fn put(place: ptr<function, u32>, x: u32) { *place = x; }
        fn add_up(x: u32) -> u32 { return subgroupAdd(x); }
        fn meet() { workgroupBarrier(); }
        fn put_first(i: u32, x: u32) { if i == 0u { output[i] = x; } }
        @compute @workgroup_size(64)
        fn main(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
            @builtin(subgroup_size) subgroup: u32,
        ) {
            var total = 0u;
        ";
    // A body, and what the refusal says, where it is to be refused.
    let cases: &[(&str, Option<&str>)] = &[
        // Uniform control flow, whatever its kind.
        ("if group.x > size { total = subgroupAdd(lane); }", None),
        ("for (var i = subgroup / 2u; i > 0u; i /= 2u) { total += subgroupShuffleXor(lane, i); }", None),
        ("if input[size] > 3u { total = subgroupAdd(lane); }", None),
        (
            "switch size { case 1u: { total = subgroupMax(lane); } default: { return; } } total += subgroupAdd(1u);",
            None,
        ),
        // A branch that lanes take differently, around it or before it.
        ("if lane < 4u {\n total = subgroupAdd(lane);\n }", Some("not all lanes may come to a subgroup operation")),
        ("if lane < 4u { total = 1u; } total = subgroupAdd(lane);", Some("lanes may be apart")),
        ("if lane < 4u { total = 1u; } workgroupBarrier(); total = subgroupAdd(lane);", None),
        ("if lane < 4u { total = 1u; } subgroupBarrier(); total = subgroupAdd(lane);", None),
        ("if lane < 4u { total = 1u; } let f = workgroupUniformLoad(&flag); total = subgroupAdd(lane) + f;", None),
        ("let all = lane < 4u && size > 2u; total = subgroupAdd(u32(all));", Some("lanes may be apart")),
        ("let all = (lane < 4u) & (size > 2u); total = subgroupAdd(u32(all));", None),
        ("total = subgroupAdd(select(1u, 2u, lane < 4u));", None),
        ("switch lane { case 1u: { total = 1u; } default: {} } total = subgroupAdd(1u);", Some("lanes may be apart")),
        // Barriers that not all come to.
        ("if lane < 4u { workgroupBarrier(); }", Some("not all lanes may come to a barrier")),
        ("if lane < 4u { return; } workgroupBarrier();", Some("not all lanes may come to a barrier")),
        ("if lane < 4u { return; } total = subgroupAdd(lane);", Some("not all lanes may come to a subgroup operation")),
        ("if group.x < 4u { return; } total = subgroupAdd(lane);", None),
        // Calls: a return in a branch, operations within, barriers within.
        ("total = helper(lane); total = subgroupAdd(total);", Some("lanes may be apart")),
        ("total = helper(lane); meet(); total = add_up(total);", None),
        ("total = helper(size); total = add_up(lane);", None),
        ("put_first(lane, 1u); total = add_up(lane);", Some("in add_up")),
        ("if helper(size) == 1u { total = add_up(lane); }", None),
        ("if helper(lane) == 1u { meet(); }", Some("in meet")),
        // Loops: leaving one, the end of one turn before the next, and what is left behind.
        ("for (var i = 0u; i < lane; i++) { total += i; } total = subgroupAdd(total);", Some("lanes may be apart")),
        ("for (var i = 0u; i < lane; i++) { total += i; } workgroupBarrier(); total = subgroupAdd(total);", None),
        ("for (var i = 0u; i < lane; i++) { workgroupBarrier(); }", Some("not all lanes may come to a barrier")),
        (
            "for (var i = 0u; i < size; i++) { total += subgroupAdd(i); if lane == i { own = 1u; } }",
            Some("lanes may be apart"),
        ),
        (
            "for (var i = 0u; i < size; i++) { total += subgroupAdd(i); if lane == i { own = 1u; } workgroupBarrier(); }",
            None,
        ),
        (
            "loop { if lane > 3u { own = 1u; } if size > 3u { break; } workgroupBarrier(); } total = subgroupAdd(1u);",
            Some("lanes may be apart"),
        ),
        (
            "loop { total += 1u; continuing { break if total > lane; } } total = subgroupAdd(1u);",
            Some("lanes may be apart"),
        ),
        ("for (var i = 0u; i < 4u; i++) { if lane == i { continue; } workgroupBarrier(); }", Some("to a barrier")),
        ("for (var i = 0u; i < 4u; i++) { workgroupBarrier(); if lane == i { continue; } own = 1u; }", None),
        (
            "for (var i = 0u; i < 9u; i++) { if lane == i { break; } meet(); }",
            Some("not all lanes may come to a barrier in meet"),
        ),
        // What variables hold.
        ("own = lane; if own > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
        ("own = size; if own > 1u { total = subgroupAdd(1u); }", None),
        ("if own > 1u { total = subgroupAdd(1u); } own = lane;", Some("not all lanes may come")),
        (
            "if lane > 3u { own = 1u; } workgroupBarrier(); if own > 0u { total = subgroupAdd(1u); }",
            Some("not all lanes may come"),
        ),
        (
            "var i = 0u; loop { if i > lane { break; } i++; } workgroupBarrier(); if i > 2u { total = subgroupAdd(1u); }",
            Some("not all lanes may come"),
        ),
        ("put(&total, lane); if total > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
        ("put(&total, size); if total > 1u { total = subgroupAdd(1u); }", None),
        ("if slots[0] > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
        ("if workgroupUniformLoad(&flag) > 1u { total = subgroupAdd(1u); }", None),
        ("if output[0] > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
        ("if input[lane] > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
        ("if atomicAdd(&votes, 1u) > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
        // What subgroup operations give.
        ("if subgroupOr(lane) > 1u { total = subgroupAdd(1u); }", None),
        ("if subgroupAny(lane > 1u) { total = subgroupAdd(1u); }", None),
        ("if subgroupBallot(lane > 1u).x > 1u { total = subgroupAdd(1u); }", None),
        ("if subgroupBroadcastFirst(lane) > 1u { total = subgroupAdd(1u); }", None),
        ("if subgroupShuffle(lane, 0u) > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
        ("if subgroupExclusiveAdd(1u) > 1u { total = subgroupAdd(1u); }", Some("not all lanes may come")),
    ];
    for (body, refusal) in cases {
        let wgsl = format!("{HEAD}{body}\noutput[lane] = total;\n}}");
        let module = naga::front::wgsl::parse_str(&wgsl)
            .unwrap_or_else(|error| panic!("{body}: {}", error.emit_to_string(&wgsl)));
        match (check(&module, &wgsl), refusal) {
            (Ok(()), None) => {}
            (Err(found), Some(expected)) => assert!(found.contains(expected), "{body}: {found}, not {expected}"),
            (found, _) => panic!("{body}: {found:?}, not {refusal:?}"),
        }
    }

    // The message says where and why.
    let wgsl = format!("{HEAD}if lane < 7u {{\ntotal = 1u;\n}}\ntotal = subgroupAdd(lane);\n}}");
    let module = naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&wgsl)));
    let message = check(&module, &wgsl).expect_err("lanes part");
    for part in ["in main", "`total = subgroupAdd(lane);`", "`if lane < 7u {`"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}
