//! Whether the lanes of a subgroup surely meet before each subgroup operation, by naga's IR.
//!
//! GPUs run lanes apart where they take different ways, and nothing in WGSL or SPIR-V says for sure that they meet again: so a
//! subgroup operation may neither lie within nor follow control flow that differs from lane to lane, unless a barrier has
//! brought the lanes together since.

use std::collections::HashSet;

use naga::{
    AddressSpace, Binding, Block, BuiltIn, CollectiveOperation, Expression, Function, GatherMode, Handle, Module, Span,
    Statement, StorageAccess,
};

/// Says where lanes may be apart in a subgroup operation, if they may.
pub fn check(module: &Module, source: &str) -> Result<(), String> {
    let mut analysis = Analysis { module, source, varying: HashSet::new(), locals: HashSet::new(), problem: None };
    let entry = &module.entry_points[0].function;
    let arguments: Vec<bool> = entry
        .arguments
        .iter()
        .map(|argument| {
            !matches!(
                argument.binding,
                Some(Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups | BuiltIn::SubgroupSize))
            )
        })
        .collect();
    // What variables hold may come from a statement further down: until nothing new turns up.
    loop {
        let known = (analysis.varying.len(), analysis.locals.len());
        analysis.problem = None;
        analysis.function(entry, None, &arguments, Flow::default(), None);
        if known == (analysis.varying.len(), analysis.locals.len()) {
            break;
        }
    }
    analysis.problem.map_or(Ok(()), Err)
}

/// Where lanes stand; each with the reason.
#[derive(Clone, Default)]
struct Flow {
    /// They took different ways and may not have met again.
    parted: Option<String>,
    /// Some have left the loop or the function at hand.
    left: Option<String>,
    /// Some have left the function at hand.
    returned: Option<String>,
}

impl Flow {
    fn or(self, other: Self) -> Self {
        Self {
            parted: self.parted.or(other.parted),
            left: self.left.or(other.left),
            returned: self.returned.or(other.returned),
        }
    }
}

struct Analysis<'a> {
    module: &'a Module,
    source: &'a str,
    /// Private variables that differ from lane to lane.
    varying: HashSet<Handle<naga::GlobalVariable>>,
    /// Those of functions, by function; the entry point is none.
    locals: HashSet<(Option<Handle<Function>>, Handle<naga::LocalVariable>)>,
    problem: Option<String>,
}

/// A function at one of its calls.
struct Frame<'a> {
    function: &'a Function,
    handle: Option<Handle<Function>>,
    arguments: &'a [bool],
    /// By expression, for results of calls and the like.
    results: HashSet<Handle<Expression>>,
    returns_varying: bool,
}

impl<'a> Analysis<'a> {
    fn refuse(&mut self, what: &str, why: &str, span: Span) {
        if self.problem.is_none() {
            let line = span.location(self.source).line_number;
            let text = self.source.lines().nth(line as usize - 1).unwrap_or_default().trim();
            self.problem = Some(format!("{what} (line {line}: `{text}`): {why}"));
        }
    }

    fn at(&self, span: Span) -> String {
        let line = span.location(self.source).line_number;
        format!("line {line}: `{}`", self.source.lines().nth(line as usize - 1).unwrap_or_default().trim())
    }

    /// Where lanes stand afterwards, and whether the result differs from lane to lane. `within` says why the call itself is in
    /// control flow that does.
    fn function(
        &mut self,
        function: &'a Function,
        handle: Option<Handle<Function>>,
        arguments: &[bool],
        flow: Flow,
        within: Option<&str>,
    ) -> (Flow, bool) {
        let mut frame = Frame { function, handle, arguments, results: HashSet::new(), returns_varying: false };
        let before = Flow { parted: flow.parted, ..Flow::default() };
        let mut after = self.block(&mut frame, &function.body, before, within);
        let returned = after.returned.take();
        (Flow { parted: after.parted.or(returned), ..Flow::default() }, frame.returns_varying)
    }

    fn block(&mut self, frame: &mut Frame<'_>, block: &Block, mut flow: Flow, within: Option<&str>) -> Flow {
        for (statement, &span) in block.span_iter() {
            flow = self.statement(frame, statement, span, flow, within);
        }
        flow
    }

    fn statement(
        &mut self,
        frame: &mut Frame<'_>,
        statement: &Statement,
        span: Span,
        mut flow: Flow,
        within: Option<&str>,
    ) -> Flow {
        match statement {
            Statement::Block(block) => return self.block(frame, block, flow, within),
            Statement::If { condition, accept, reject } => {
                if self.differs(frame, *condition) {
                    let why = format!("lanes part at {}", self.at(span));
                    let inside = Some(why.as_str());
                    let a = self.block(frame, accept, flow.clone(), inside);
                    let b = self.block(frame, reject, flow, inside);
                    let mut after = a.or(b);
                    after.parted.get_or_insert(why);
                    return after;
                }
                let a = self.block(frame, accept, flow.clone(), within);
                return a.or(self.block(frame, reject, flow, within));
            }
            Statement::Switch { selector, cases } => {
                let why = self.differs(frame, *selector).then(|| format!("lanes part at {}", self.at(span)));
                let mut after = flow.clone();
                for case in cases {
                    after = after.or(self.block(frame, &case.body, flow.clone(), why.as_deref().or(within)));
                }
                after.parted = after.parted.or(why);
                return after;
            }
            Statement::Loop { body, continuing, break_if } => {
                // What the end of the body leaves is where its second turn begins.
                let outer = flow.left.take();
                for _ in 0..2 {
                    flow = self.block(frame, body, flow, within);
                    flow = self.block(frame, continuing, flow, within);
                    if break_if.is_some_and(|it| self.differs(frame, it)) {
                        flow.left.get_or_insert(format!("lanes leave the loop at {}", self.at(span)));
                    }
                }
                flow.parted = flow.parted.or(flow.left.take());
                flow.left = outer.or(flow.returned.clone());
            }
            Statement::Break | Statement::Continue => {
                if let Some(why) = within {
                    flow.left.get_or_insert(why.to_owned());
                }
            }
            Statement::Return { value } => {
                if value.is_some_and(|value| self.differs(frame, value)) || within.is_some() {
                    frame.returns_varying = true;
                }
                if let Some(why) = within {
                    flow.left.get_or_insert(why.to_owned());
                    flow.returned.get_or_insert(why.to_owned());
                }
            }
            Statement::ControlBarrier(_) => flow = self.barrier(span, flow, within),
            Statement::WorkGroupUniformLoad { .. } => flow = self.barrier(span, flow, within),
            Statement::Store { pointer, value } => {
                let differs = self.differs(frame, *value) || self.differs(frame, *pointer) || within.is_some();
                if differs {
                    self.mark(frame, *pointer);
                }
            }
            Statement::Atomic { result, .. } => frame.results.extend(result),
            Statement::Call { function, arguments, result } => {
                let differ: Vec<bool> = arguments.iter().map(|&it| self.differs(frame, it)).collect();
                for &argument in arguments {
                    // A callee may write to what it is given a pointer to.
                    if self.is_pointer(frame, argument) {
                        self.mark(frame, argument);
                    }
                }
                let parted = flow.parted.take();
                let (after, differs) = self.function(
                    &self.module.functions[*function],
                    Some(*function),
                    &differ,
                    Flow { parted, ..Flow::default() },
                    within,
                );
                flow.parted = after.parted;
                if let Some(result) = result.filter(|_| differs) {
                    frame.results.insert(result);
                }
            }
            Statement::SubgroupBallot { .. } => self.together(span, &flow, within),
            Statement::SubgroupCollectiveOperation { collective_op, result, .. } => {
                self.together(span, &flow, within);
                if *collective_op != CollectiveOperation::Reduce {
                    frame.results.insert(*result);
                }
            }
            Statement::SubgroupGather { mode, result, .. } => {
                self.together(span, &flow, within);
                if !matches!(mode, GatherMode::Broadcast(_) | GatherMode::BroadcastFirst) {
                    frame.results.insert(*result);
                }
            }
            _ => {}
        }
        flow
    }

    /// Brings lanes together, if all of them come.
    fn barrier(&mut self, span: Span, mut flow: Flow, within: Option<&str>) -> Flow {
        if let Some(why) = within.map(str::to_owned).or(flow.left.clone()) {
            self.refuse("a barrier that not all lanes may come to", &why, span);
        }
        flow.parted = None;
        flow
    }

    fn together(&mut self, span: Span, flow: &Flow, within: Option<&str>) {
        if let Some(why) = within.map(str::to_owned).or(flow.left.clone()).or(flow.parted.clone()) {
            self.refuse("a subgroup operation to which lanes may come apart", &why, span);
        }
    }

    fn is_pointer(&self, frame: &Frame<'_>, handle: Handle<Expression>) -> bool {
        match frame.function.expressions[handle] {
            Expression::GlobalVariable(_) | Expression::LocalVariable(_) => true,
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.is_pointer(frame, base),
            _ => false,
        }
    }

    /// That the variable behind a pointer differs from lane to lane.
    fn mark(&mut self, frame: &Frame<'_>, pointer: Handle<Expression>) {
        match frame.function.expressions[pointer] {
            Expression::GlobalVariable(variable) => {
                self.varying.insert(variable);
            }
            Expression::LocalVariable(variable) => {
                self.locals.insert((frame.handle, variable));
            }
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.mark(frame, base),
            _ => {}
        }
    }

    /// Whether a value differs from lane to lane; of a pointer, whether what is read through it does.
    fn differs(&self, frame: &Frame<'_>, handle: Handle<Expression>) -> bool {
        let of = |handle: Handle<Expression>| self.differs(frame, handle);
        match &frame.function.expressions[handle] {
            Expression::FunctionArgument(index) => frame.arguments[*index as usize],
            Expression::GlobalVariable(variable) => match self.module.global_variables[*variable].space {
                AddressSpace::Uniform => false,
                AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
                AddressSpace::Private => self.varying.contains(variable),
                _ => true,
            },
            Expression::LocalVariable(variable) => self.locals.contains(&(frame.handle, *variable)),
            Expression::Compose { components, .. } => components.iter().any(|&it| of(it)),
            Expression::Access { base, index } => of(*base) || of(*index),
            Expression::AccessIndex { base: operand, .. }
            | Expression::Splat { value: operand, .. }
            | Expression::Swizzle { vector: operand, .. }
            | Expression::Load { pointer: operand }
            | Expression::Unary { expr: operand, .. }
            | Expression::As { expr: operand, .. }
            | Expression::Relational { argument: operand, .. } => of(*operand),
            Expression::Binary { left, right, .. } => of(*left) || of(*right),
            Expression::Select { condition, accept, reject } => of(*condition) || of(*accept) || of(*reject),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                of(*arg) || [arg1, arg2, arg3].into_iter().flatten().any(|&it| of(it))
            }
            Expression::CallResult(_)
            | Expression::AtomicResult { .. }
            | Expression::SubgroupOperationResult { .. } => frame.results.contains(&handle),
            _ => false,
        }
    }
}
