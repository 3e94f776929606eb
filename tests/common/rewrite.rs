//! What a compiler for GPUs may make of float arithmetic, done at random to naga's IR.
//!
//! WGSL lets a compiler reassociate, factor and distribute sums and products, contract them to fused operations and undo those,
//! divide by multiplying with a reciprocal, and flush subnormal results. [`rewrite`] does each of these at random within the
//! functions of a module, and leaves conversions of bits, comparisons, selections, calls and memory alone. [`inline`] puts
//! functions into the place of their calls first, as compilers do, so that rewriting reaches through them.
//!
//! Why operands of operands may be used: a handle is emitted in the same block as what uses it, earlier, or in a block around
//! that. So all that an expression rests on is in scope wherever the expression itself is, and its value does not change.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use naga::valid::{
    Capabilities, FunctionInfo, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};
use naga::{
    Arena, AtomicFunction, BinaryOperator, Block, Expression, FastIndexMap, Function, GatherMode, Handle, Literal,
    LocalVariable, MathFunction, Module, Scalar, ScalarKind, Span, Statement, SwitchCase, TypeInner, UnaryOperator,
    VectorSize,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Whether (x − s)² may become x² − 2 x s + s²; no compiler is known to do that.
pub const EXPAND_SQUARES: bool = false;

/// Which rewritings are done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rewriting {
    /// Sums in another order and association, with subtraction in other places.
    pub sums: bool,
    /// Products in another order and association.
    pub products: bool,
    /// (a ± b) · c as a · c ± b · c, and back.
    pub distribute: bool,
    /// a · b + c as one operation, and back.
    pub fma: bool,
    /// x / y as x · (1 / y).
    pub divide: bool,
    /// Subnormal results as zero.
    pub flush: bool,
    /// The operands of a sum or a product the other way round.
    pub swap: bool,
}

impl Rewriting {
    pub const ALL: Self =
        Self { sums: true, products: true, distribute: true, fma: true, divide: true, flush: true, swap: true };
    pub const NONE: Self =
        Self { sums: false, products: false, distribute: false, fma: false, divide: false, flush: false, swap: false };
}

/// How often an expression is rewritten at all.
const REWRITE: f64 = 0.95;
/// How often an operand is looked into, and how deep.
const LOOK_INTO: f64 = 0.85;
const DEPTH: u32 = 6;
/// The most operands that one expression is taken apart to, and the most terms that a product is distributed to.
const MOST_LEAVES: usize = 24;
const MOST_TERMS: usize = 12;
/// Functions with more expressions than this stay calls.
const LARGEST_INLINED: usize = 4000;

/// The module with the float arithmetic of all its functions rewritten.
pub fn rewrite(module: &Module, rewriting: Rewriting, seed: u64) -> Module {
    let info = validate(module);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut result = module.clone();
    for (handle, function) in module.functions.iter() {
        let shapes = shapes(module, function, &info[handle]);
        result.functions[handle] = Copier::rewriting(rewriting, &mut rng, shapes).run(function);
    }
    for (index, entry) in module.entry_points.iter().enumerate() {
        let shapes = shapes(module, &entry.function, info.get_entry_point(index));
        let function = Copier::rewriting(rewriting, &mut rng, shapes).run(&entry.function);
        result.entry_points[index].function = function;
    }
    validate(&result);
    result
}

/// The module with calls replaced by what the called functions do, unless these return early; branches on constants are
/// decided. The functions themselves stay, so that handles keep their meaning.
pub fn inline(module: &Module) -> Module {
    let mut result = module.clone();
    // Callees come before their callers.
    for (handle, function) in module.functions.iter() {
        let function = Copier::inlining(module, &result.functions).run(function);
        result.functions[handle] = function;
    }
    for (index, entry) in module.entry_points.iter().enumerate() {
        let function = Copier::inlining(module, &result.functions).run(&entry.function);
        result.entry_points[index].function = function;
    }
    validate(&result);
    result
}

fn validate(module: &Module) -> ModuleInfo {
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(module)
        .unwrap_or_else(|error| panic!("no valid module: {:?}", error.into_inner()))
}

/// The type of an f32, or of a vector of so many.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Scalar,
    Vector(VectorSize),
}

impl Shape {
    fn of(inner: &TypeInner) -> Option<Self> {
        match *inner {
            TypeInner::Scalar(scalar) if scalar == Scalar::F32 => Some(Self::Scalar),
            TypeInner::Vector { size, scalar } if scalar == Scalar::F32 => Some(Self::Vector(size)),
            _ => None,
        }
    }

    fn or(self, other: Self) -> Self {
        if self == Self::Scalar { other } else { self }
    }
}

fn shapes(module: &Module, function: &Function, info: &FunctionInfo) -> Vec<Option<Shape>> {
    function.expressions.iter().map(|(handle, _)| Shape::of(info[handle].ty.inner_with(&module.types))).collect()
}

/// Calls `change` with each operand of an expression.
fn operands(expression: &mut Expression, change: &mut dyn FnMut(&mut Handle<Expression>)) {
    match expression {
        Expression::Compose { components, .. } => {
            for component in components {
                change(component);
            }
        }
        Expression::Access { base, index } => {
            change(base);
            change(index);
        }
        Expression::AccessIndex { base: operand, .. }
        | Expression::Splat { value: operand, .. }
        | Expression::Swizzle { vector: operand, .. }
        | Expression::Load { pointer: operand }
        | Expression::Unary { expr: operand, .. }
        | Expression::As { expr: operand, .. }
        | Expression::Relational { argument: operand, .. }
        | Expression::ArrayLength(operand) => change(operand),
        Expression::Binary { left, right, .. } => {
            change(left);
            change(right);
        }
        Expression::Select { condition, accept, reject } => {
            change(condition);
            change(accept);
            change(reject);
        }
        Expression::Math { arg, arg1, arg2, arg3, .. } => {
            change(arg);
            for operand in [arg1, arg2, arg3].into_iter().flatten() {
                change(operand);
            }
        }
        Expression::Literal(_)
        | Expression::Constant(_)
        | Expression::Override(_)
        | Expression::ZeroValue(_)
        | Expression::FunctionArgument(_)
        | Expression::GlobalVariable(_)
        | Expression::LocalVariable(_)
        | Expression::CallResult(_)
        | Expression::AtomicResult { .. }
        | Expression::WorkGroupUniformLoadResult { .. }
        | Expression::SubgroupBallotResult
        | Expression::SubgroupOperationResult { .. } => {}
        other => panic!("no compute kernel here has {other:?}"),
    }
}

/// A function that is copied into the new one.
struct Frame<'f> {
    function: &'f Function,
    /// Where each of its expressions is in the new function, once it is.
    map: Vec<Option<Handle<Expression>>>,
    /// Where each of its variables is.
    locals: Vec<Handle<LocalVariable>>,
}

impl Frame<'_> {
    fn at(&self, old: Handle<Expression>) -> Handle<Expression> {
        self.map[old.index()]
            .unwrap_or_else(|| panic!("{old:?} is used before it is emitted: {:?}", self.function.expressions[old]))
    }
}

/// Builds a new function from an old one, statement by statement.
struct Copier<'a> {
    expressions: Arena<Expression>,
    locals: Arena<LocalVariable>,
    names: FastIndexMap<Handle<Expression>, String>,
    /// What rewrites, if anything is to be rewritten.
    arithmetic: Option<Arithmetic<'a>>,
    /// The module and the functions that are put in the place of their calls, if any are.
    inlined: Option<(&'a Module, &'a Arena<Function>)>,
}

impl<'a> Copier<'a> {
    fn new() -> Self {
        Self {
            expressions: Arena::new(),
            locals: Arena::new(),
            names: FastIndexMap::default(),
            arithmetic: None,
            inlined: None,
        }
    }

    fn rewriting(rewriting: Rewriting, rng: &'a mut StdRng, shapes: Vec<Option<Shape>>) -> Self {
        let mut copier = Self::new();
        copier.arithmetic = Some(Arithmetic::new(&mut copier.expressions, rewriting, rng, shapes));
        copier
    }

    fn inlining(module: &'a Module, functions: &'a Arena<Function>) -> Self {
        Self { inlined: Some((module, functions)), ..Self::new() }
    }

    fn run(mut self, old: &Function) -> Function {
        let mut frame = self.frame(old, None);
        let mut body = Block::new();
        self.block(&mut frame, &old.body, &mut body);
        self.take_names(&frame);
        for (local, variable) in old.local_variables.iter() {
            if let Some(init) = variable.init {
                let init = self.constant(&frame, init);
                let new = frame.locals[local.index()];
                self.locals[new].init = Some(init);
            }
        }
        Function {
            name: old.name.clone(),
            arguments: old.arguments.clone(),
            result: old.result.clone(),
            local_variables: self.locals,
            expressions: self.expressions,
            named_expressions: self.names,
            body,
            diagnostic_filter_leaf: old.diagnostic_filter_leaf,
        }
    }

    /// Begins to copy a function: its variables, and what no statement emits. Precondition: nothing is being emitted.
    fn frame<'f>(&mut self, function: &'f Function, arguments: Option<&[Handle<Expression>]>) -> Frame<'f> {
        let mut locals = Vec::new();
        for (local, variable) in function.local_variables.iter() {
            let copy = LocalVariable { init: None, ..variable.clone() };
            locals.push(self.locals.append(copy, function.local_variables.get_span(local)));
        }
        let mut map = vec![None; function.expressions.len()];
        for (handle, expression) in function.expressions.iter() {
            if !expression.needs_pre_emit() {
                continue;
            }
            let span = function.expressions.get_span(handle);
            let new = match (expression, arguments) {
                (Expression::FunctionArgument(index), Some(arguments)) => arguments[*index as usize],
                (Expression::LocalVariable(local), _) => {
                    self.expressions.append(Expression::LocalVariable(locals[local.index()]), span)
                }
                _ => self.expressions.append(expression.clone(), span),
            };
            map[handle.index()] = Some(new);
        }
        Frame { function, map, locals }
    }

    fn take_names(&mut self, frame: &Frame<'_>) {
        for (old, name) in frame.function.named_expressions.iter() {
            if let Some(new) = frame.map[old.index()] {
                let is_own = !self.expressions[new].needs_pre_emit() && !self.names.contains_key(&new);
                if is_own {
                    self.names.insert(new, name.clone());
                }
            }
        }
    }

    /// A copy of a constant expression with all that it rests on, whether or not that is emitted anywhere.
    fn constant(&mut self, frame: &Frame<'_>, old: Handle<Expression>) -> Handle<Expression> {
        let expression = &frame.function.expressions[old];
        if expression.needs_pre_emit() {
            return frame.at(old);
        }
        let mut copy = expression.clone();
        operands(&mut copy, &mut |operand| *operand = self.constant(frame, *operand));
        self.expressions.append(copy, frame.function.expressions.get_span(old))
    }

    /// The result that a statement makes.
    fn result(&mut self, frame: &mut Frame<'_>, old: Handle<Expression>) -> Handle<Expression> {
        let span = frame.function.expressions.get_span(old);
        let new = self.expressions.append(frame.function.expressions[old].clone(), span);
        frame.map[old.index()] = Some(new);
        new
    }

    /// Whether control never comes to the block's end.
    fn block(&mut self, frame: &mut Frame<'_>, old: &Block, out: &mut Block) -> bool {
        for (statement, span) in old.span_iter() {
            if self.statement(frame, statement, *span, out) {
                return true;
            }
        }
        false
    }

    fn copied(&mut self, frame: &mut Frame<'_>, old: &Block) -> Block {
        let mut new = Block::new();
        self.block(frame, old, &mut new);
        new
    }

    /// What a condition is known to be.
    fn known(&self, new: Handle<Expression>) -> Option<bool> {
        let (module, _) = self.inlined?;
        match self.expressions[new] {
            Expression::Literal(Literal::Bool(value)) => Some(value),
            Expression::Constant(constant) => match module.global_expressions[module.constants[constant].init] {
                Expression::Literal(Literal::Bool(value)) => Some(value),
                _ => None,
            },
            Expression::Unary { op: UnaryOperator::LogicalNot, expr } => self.known(expr).map(|value| !value),
            _ => None,
        }
    }

    /// Whether control never comes past the statement.
    fn statement(&mut self, frame: &mut Frame<'_>, old: &Statement, span: Span, out: &mut Block) -> bool {
        let mut ends = false;
        let new = match old {
            Statement::Emit(range) => {
                let start = self.expressions.len();
                for handle in range.clone() {
                    let new = self.emitted(frame, handle);
                    frame.map[handle.index()] = Some(new);
                }
                if self.expressions.len() == start {
                    return false;
                }
                Statement::Emit(self.expressions.range_from(start))
            }
            Statement::Block(block) => {
                let mut new = Block::new();
                ends = self.block(frame, block, &mut new);
                Statement::Block(new)
            }
            Statement::If { condition, accept, reject } => {
                let condition = frame.at(*condition);
                if let Some(known) = self.known(condition) {
                    return self.block(frame, if known { accept } else { reject }, out);
                }
                let accept = self.copied(frame, accept);
                let reject = self.copied(frame, reject);
                Statement::If { condition, accept, reject }
            }
            Statement::Switch { selector, cases } => {
                let selector = frame.at(*selector);
                let mut new_cases = Vec::new();
                for case in cases {
                    let body = self.copied(frame, &case.body);
                    new_cases.push(SwitchCase { value: case.value, body, fall_through: case.fall_through });
                }
                Statement::Switch { selector, cases: new_cases }
            }
            Statement::Loop { body, continuing, break_if } => {
                let body = self.copied(frame, body);
                let continuing = self.copied(frame, continuing);
                Statement::Loop { body, continuing, break_if: break_if.map(|it| frame.at(it)) }
            }
            Statement::Break => {
                ends = true;
                Statement::Break
            }
            Statement::Continue => {
                ends = true;
                Statement::Continue
            }
            Statement::Return { value } => {
                ends = true;
                Statement::Return { value: value.map(|it| frame.at(it)) }
            }
            Statement::ControlBarrier(barrier) => Statement::ControlBarrier(*barrier),
            Statement::MemoryBarrier(barrier) => Statement::MemoryBarrier(*barrier),
            Statement::Store { pointer, value } => {
                Statement::Store { pointer: frame.at(*pointer), value: frame.at(*value) }
            }
            Statement::Atomic { pointer, fun, value, result } => {
                let (pointer, value) = (frame.at(*pointer), frame.at(*value));
                let fun = match *fun {
                    AtomicFunction::Exchange { compare } => {
                        AtomicFunction::Exchange { compare: compare.map(|it| frame.at(it)) }
                    }
                    other => other,
                };
                let result = result.map(|it| self.result(frame, it));
                Statement::Atomic { pointer, fun, value, result }
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                let pointer = frame.at(*pointer);
                Statement::WorkGroupUniformLoad { pointer, result: self.result(frame, *result) }
            }
            Statement::Call { function, arguments, result } => {
                let arguments: Vec<_> = arguments.iter().map(|it| frame.at(*it)).collect();
                if let Some((_, functions)) = self.inlined {
                    let callee = &functions[*function];
                    if let Some((body, value)) = straight(callee) {
                        let value = self.inline(callee, &arguments, &body, value, span, out);
                        if let (Some(result), Some(value)) = (*result, value) {
                            frame.map[result.index()] = Some(value);
                        }
                        return false;
                    }
                }
                let result = result.map(|it| self.result(frame, it));
                Statement::Call { function: *function, arguments, result }
            }
            Statement::SubgroupBallot { result, predicate } => {
                let predicate = predicate.map(|it| frame.at(it));
                Statement::SubgroupBallot { result: self.result(frame, *result), predicate }
            }
            Statement::SubgroupGather { mode, argument, result } => {
                let mode = match *mode {
                    GatherMode::BroadcastFirst => GatherMode::BroadcastFirst,
                    GatherMode::Broadcast(index) => GatherMode::Broadcast(frame.at(index)),
                    GatherMode::Shuffle(index) => GatherMode::Shuffle(frame.at(index)),
                    GatherMode::ShuffleDown(delta) => GatherMode::ShuffleDown(frame.at(delta)),
                    GatherMode::ShuffleUp(delta) => GatherMode::ShuffleUp(frame.at(delta)),
                    GatherMode::ShuffleXor(mask) => GatherMode::ShuffleXor(frame.at(mask)),
                    GatherMode::QuadBroadcast(index) => GatherMode::QuadBroadcast(frame.at(index)),
                    GatherMode::QuadSwap(direction) => GatherMode::QuadSwap(direction),
                };
                let argument = frame.at(*argument);
                Statement::SubgroupGather { mode, argument, result: self.result(frame, *result) }
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let (op, collective_op, argument) = (*op, *collective_op, frame.at(*argument));
                let result = self.result(frame, *result);
                Statement::SubgroupCollectiveOperation { op, collective_op, argument, result }
            }
            other => panic!("no compute kernel here has {other:?}"),
        };
        out.push(new, span);
        ends
    }

    fn emitted(&mut self, frame: &Frame<'_>, old: Handle<Expression>) -> Handle<Expression> {
        let span = frame.function.expressions.get_span(old);
        if let Some(arithmetic) = &mut self.arithmetic {
            let out = &mut self.expressions;
            return Rebuilder { arithmetic, out, frame, span, leaves: 0 }.rewritten(old);
        }
        let mut copy = frame.function.expressions[old].clone();
        operands(&mut copy, &mut |operand| *operand = frame.at(*operand));
        self.expressions.append(copy, span)
    }

    /// Puts a function in the place of a call, and gives its value.
    fn inline(
        &mut self,
        callee: &Function,
        arguments: &[Handle<Expression>],
        body: &Block,
        value: Option<Handle<Expression>>,
        span: Span,
        out: &mut Block,
    ) -> Option<Handle<Expression>> {
        let mut frame = self.frame(callee, Some(arguments));
        // Each call begins with fresh variables; here the call may lie in a loop.
        for (local, variable) in callee.local_variables.iter() {
            let place = frame.locals[local.index()];
            let pointer = self.expressions.append(Expression::LocalVariable(place), span);
            let value = match variable.init {
                Some(init) => {
                    let start = self.expressions.len();
                    let value = self.constant(&frame, init);
                    if self.expressions.len() > start {
                        out.push(Statement::Emit(self.expressions.range_from(start)), span);
                    }
                    value
                }
                None => self.expressions.append(Expression::ZeroValue(variable.ty), span),
            };
            out.push(Statement::Store { pointer, value }, span);
        }
        self.block(&mut frame, body, out);
        self.take_names(&frame);
        value.map(|it| frame.at(it))
    }
}

/// The body without its return, and what it returns, of a function that returns at its end only.
fn straight(function: &Function) -> Option<(Block, Option<Handle<Expression>>)> {
    if function.expressions.len() > LARGEST_INLINED {
        return None;
    }
    let mut body = function.body.clone();
    let value = match body.last() {
        Some(Statement::Return { value }) => *value,
        _ => None,
    };
    if value.is_some() {
        let last = body.len() - 1;
        body.cull(last..);
    } else {
        strip_returns(&mut body);
    }
    (!has_return(&body) && value.is_some() == function.result.is_some()).then_some((body, value))
}

/// Takes away returns of nothing that nothing follows.
fn strip_returns(block: &mut Block) {
    while let Some(Statement::Return { value: None }) = block.last() {
        let last = block.len() - 1;
        block.cull(last..);
    }
    match block.last_mut() {
        Some(Statement::Block(inner)) => strip_returns(inner),
        Some(Statement::If { accept, reject, .. }) => {
            strip_returns(accept);
            strip_returns(reject);
        }
        _ => {}
    }
}

fn has_return(block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Return { .. } | Statement::Kill => true,
        Statement::Block(block) => has_return(block),
        Statement::If { accept, reject, .. } => has_return(accept) || has_return(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| has_return(&case.body)),
        Statement::Loop { body, continuing, .. } => has_return(body) || has_return(continuing),
        _ => false,
    })
}

/// An expression that was taken apart. Its leaves are expressions of the old function; scalars stand for vectors of themselves
/// wherever a vector is asked for.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Leaf(Handle<Expression>),
    /// Each with whether it is subtracted.
    Sum(Vec<(bool, Node)>),
    /// Each with whether it divides.
    Product(Vec<(bool, Node)>),
    Quotient(Box<Node>, Box<Node>),
    /// The first two multiplied, and the third added, with one rounding.
    Fused(Box<[Node; 3]>),
}

/// What rewrites one function.
struct Arithmetic<'r> {
    rewriting: Rewriting,
    rng: &'r mut StdRng,
    shapes: Vec<Option<Shape>>,
    one: Handle<Expression>,
    zero: Handle<Expression>,
    exponent_bits: Handle<Expression>,
    sign_bit: Handle<Expression>,
    no_bits: Handle<Expression>,
}

impl<'r> Arithmetic<'r> {
    fn new(
        expressions: &mut Arena<Expression>,
        rewriting: Rewriting,
        rng: &'r mut StdRng,
        shapes: Vec<Option<Shape>>,
    ) -> Self {
        let mut literal = |literal| expressions.append(Expression::Literal(literal), Span::UNDEFINED);
        let (one, zero) = (literal(Literal::F32(1.0)), literal(Literal::F32(0.0)));
        let (exponent_bits, sign_bit) = (literal(Literal::U32(0x7f80_0000)), literal(Literal::U32(0x8000_0000)));
        let no_bits = literal(Literal::U32(0));
        Self { rewriting, rng, shapes, one, zero, exponent_bits, sign_bit, no_bits }
    }
}

/// Rewrites one expression. Whatever it appends is emitted.
struct Rebuilder<'b, 'r, 'f> {
    arithmetic: &'b mut Arithmetic<'r>,
    out: &'b mut Arena<Expression>,
    frame: &'b Frame<'f>,
    span: Span,
    leaves: usize,
}

impl Rebuilder<'_, '_, '_> {
    fn rewritten(&mut self, old: Handle<Expression>) -> Handle<Expression> {
        if let Some(shape) = self.shape(old) {
            let opened = if self.chance(REWRITE) { self.opened(old, 0) } else { None };
            if let Some(node) = opened {
                let node = self.transformed(node);
                return self.build(&node, shape);
            }
        }
        let mut copy = self.frame.function.expressions[old].clone();
        let frame = self.frame;
        operands(&mut copy, &mut |operand| *operand = frame.at(*operand));
        self.out.append(copy, self.span)
    }

    fn allowed(&self) -> Rewriting {
        self.arithmetic.rewriting
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.arithmetic.rng.random_bool(probability)
    }

    fn shape(&self, old: Handle<Expression>) -> Option<Shape> {
        self.arithmetic.shapes[old.index()]
    }

    fn is_float(&self, olds: &[Handle<Expression>]) -> bool {
        olds.iter().all(|old| self.shape(*old).is_some())
    }

    /// An operand, taken apart or not.
    fn node(&mut self, old: Handle<Expression>, depth: u32) -> Node {
        let look = depth < DEPTH && self.leaves < MOST_LEAVES && self.chance(LOOK_INTO);
        let opened = if look { self.opened(old, depth) } else { None };
        opened.unwrap_or_else(|| {
            self.leaves += 1;
            Node::Leaf(old)
        })
    }

    /// Two operands; the same one twice is taken apart in one way.
    fn nodes(&mut self, left: Handle<Expression>, right: Handle<Expression>, depth: u32) -> (Node, Node) {
        let left_node = self.node(left, depth);
        let right_node = if left == right { left_node.clone() } else { self.node(right, depth) };
        (left_node, right_node)
    }

    /// An expression taken apart, if it is arithmetic on floats.
    fn opened(&mut self, old: Handle<Expression>, depth: u32) -> Option<Node> {
        let frame = self.frame;
        let allowed = self.allowed();
        match frame.function.expressions[old] {
            // A scalar does for a vector of it, wherever an operand is built.
            Expression::Splat { value, .. }
                if depth > 0 && (allowed.sums || allowed.products) && self.is_float(&[value]) =>
            {
                Some(self.node(value, depth))
            }
            Expression::Unary { op: UnaryOperator::Negate, expr } if self.is_float(&[expr]) => {
                let node = self.node(expr, depth + 1);
                let mut items = Vec::new();
                self.add_item(&mut items, true, node);
                Some(Node::Sum(items))
            }
            Expression::Binary { op, left, right } if self.is_float(&[left, right]) => match op {
                BinaryOperator::Add | BinaryOperator::Subtract => {
                    let (left, right) = self.nodes(left, right, depth + 1);
                    let mut items = Vec::new();
                    self.add_item(&mut items, false, left);
                    self.add_item(&mut items, op == BinaryOperator::Subtract, right);
                    Some(Node::Sum(items))
                }
                BinaryOperator::Multiply => {
                    let (left, right) = self.nodes(left, right, depth + 1);
                    Some(self.product_of(left, right))
                }
                BinaryOperator::Divide => {
                    let (left, right) = self.nodes(left, right, depth + 1);
                    if allowed.divide && self.chance(0.7) {
                        let mut factors = Vec::new();
                        self.add_factor(&mut factors, left);
                        factors.push((true, right));
                        Some(Node::Product(factors))
                    } else {
                        Some(Node::Quotient(Box::new(left), Box::new(right)))
                    }
                }
                _ => None,
            },
            Expression::Math { fun: MathFunction::Fma, arg, arg1: Some(arg1), arg2: Some(arg2), .. }
                if self.is_float(&[arg, arg1, arg2]) =>
            {
                let (left, right) = self.nodes(arg, arg1, depth + 1);
                let summand = self.node(arg2, depth + 1);
                if allowed.fma && self.chance(0.6) {
                    let product = self.product_of(left, right);
                    let mut items = vec![(false, product)];
                    self.add_item(&mut items, false, summand);
                    Some(Node::Sum(items))
                } else {
                    Some(Node::Fused(Box::new([left, right, summand])))
                }
            }
            _ => None,
        }
    }

    /// Adds to a sum, item by item if that is allowed.
    fn add_item(&self, items: &mut Vec<(bool, Node)>, negative: bool, node: Node) {
        match node {
            Node::Sum(inner) if self.allowed().sums => {
                items.extend(inner.into_iter().map(|(sign, node)| (sign != negative, node)));
            }
            node => items.push((negative, node)),
        }
    }

    /// Multiplies a product, factor by factor if that is allowed.
    fn add_factor(&self, factors: &mut Vec<(bool, Node)>, node: Node) {
        match node {
            Node::Product(inner) if self.allowed().products => factors.extend(inner),
            node => factors.push((false, node)),
        }
    }

    fn product_of(&self, left: Node, right: Node) -> Node {
        let mut factors = Vec::new();
        self.add_factor(&mut factors, left);
        self.add_factor(&mut factors, right);
        Node::Product(factors)
    }

    /// The node with products distributed and factors taken out here and there.
    fn transformed(&mut self, node: Node) -> Node {
        match node {
            Node::Leaf(_) => node,
            Node::Sum(old) => {
                let mut items = Vec::new();
                for (negative, item) in old {
                    let item = self.transformed(item);
                    self.add_item(&mut items, negative, item);
                }
                if self.allowed().distribute && self.chance(0.6) { factored(items) } else { Node::Sum(items) }
            }
            Node::Product(old) => {
                let mut factors = Vec::new();
                for (inverse, factor) in old {
                    let factor = self.transformed(factor);
                    if inverse {
                        factors.push((true, factor));
                    } else {
                        self.add_factor(&mut factors, factor);
                    }
                }
                if self.allowed().distribute { self.distributed(factors, MOST_TERMS) } else { Node::Product(factors) }
            }
            Node::Quotient(left, right) => {
                let (left, right) = (self.transformed(*left), self.transformed(*right));
                Node::Quotient(Box::new(left), Box::new(right))
            }
            Node::Fused(operands) => {
                let [a, b, c] = *operands;
                let (a, b, c) = (self.transformed(a), self.transformed(b), self.transformed(c));
                Node::Fused(Box::new([a, b, c]))
            }
        }
    }

    /// A product, or the sum of products that it is when a factor that is a sum is multiplied out.
    fn distributed(&mut self, factors: Vec<(bool, Node)>, most: usize) -> Node {
        let place = factors.iter().enumerate().position(|(i, (inverse, factor))| {
            let is_sum = matches!(factor, Node::Sum(items) if (2..=most).contains(&items.len()));
            let is_square = factors.iter().enumerate().any(|(j, (_, other))| j != i && other == factor);
            is_sum && !*inverse && (EXPAND_SQUARES || !is_square)
        });
        let Some(place) = place.filter(|_| factors.len() > 1) else { return Node::Product(factors) };
        if !self.chance(0.5) {
            return Node::Product(factors);
        }
        let Node::Sum(terms) = &factors[place].1 else { unreachable!("a sum was looked for") };
        let most = most / terms.len();
        let mut items = Vec::new();
        for (negative, term) in terms {
            let mut product = Vec::new();
            for (i, (inverse, factor)) in factors.iter().enumerate() {
                if i == place {
                    self.add_factor(&mut product, term.clone());
                } else {
                    product.push((*inverse, factor.clone()));
                }
            }
            let item = self.distributed(product, most);
            self.add_item(&mut items, *negative, item);
        }
        Node::Sum(items)
    }

    fn shape_of(&self, node: &Node) -> Shape {
        let of_all =
            |nodes: &[(bool, Node)]| nodes.iter().fold(Shape::Scalar, |shape, (_, node)| shape.or(self.shape_of(node)));
        match node {
            Node::Leaf(old) => self.shape(*old).expect("a float"),
            Node::Sum(nodes) | Node::Product(nodes) => of_all(nodes),
            Node::Quotient(left, right) => self.shape_of(left).or(self.shape_of(right)),
            Node::Fused(nodes) => nodes.iter().fold(Shape::Scalar, |shape, node| shape.or(self.shape_of(node))),
        }
    }

    fn append(&mut self, expression: Expression) -> Handle<Expression> {
        self.out.append(expression, self.span)
    }

    fn splatted(&mut self, scalar: Handle<Expression>, shape: Shape) -> Handle<Expression> {
        match shape {
            Shape::Scalar => scalar,
            Shape::Vector(size) => self.append(Expression::Splat { size, value: scalar }),
        }
    }

    /// A value as a vector where one is wanted.
    fn fitted(&mut self, (value, shape): (Handle<Expression>, Shape), wanted: Shape) -> Handle<Expression> {
        if shape == Shape::Scalar { self.splatted(value, wanted) } else { value }
    }

    fn build(&mut self, node: &Node, wanted: Shape) -> Handle<Expression> {
        let value = self.value(node);
        self.fitted(value, wanted)
    }

    fn value(&mut self, node: &Node) -> (Handle<Expression>, Shape) {
        let shape = self.shape_of(node);
        let value = match node {
            Node::Leaf(old) => self.frame.at(*old),
            Node::Sum(items) => {
                let mut items = items.clone();
                if self.allowed().sums {
                    items.shuffle(self.arithmetic.rng);
                }
                let (negative, value) = self.sum(&items, shape);
                if negative { self.negated(value) } else { value }
            }
            Node::Product(factors) => {
                let mut factors = factors.clone();
                if self.allowed().products {
                    factors.shuffle(self.arithmetic.rng);
                }
                return self.product(&factors);
            }
            Node::Quotient(left, right) => {
                let (left, right) = (self.build(left, shape), self.build(right, shape));
                self.binary(BinaryOperator::Divide, left, right, shape)
            }
            Node::Fused(operands) => {
                let [a, b, c] = &**operands;
                let (a, b, c) = (self.build(a, shape), self.build(b, shape), self.build(c, shape));
                self.fused(a, b, c, shape)
            }
        };
        (value, shape)
    }

    /// A sum of that shape, and whether it is still to be negated.
    fn sum(&mut self, items: &[(bool, Node)], shape: Shape) -> (bool, Handle<Expression>) {
        if let [(negative, node)] = items {
            return (*negative, self.build(node, shape));
        }
        let product = items.iter().position(|(_, node)| matches!(node, Node::Product(factors) if factors.len() >= 2));
        let product = product.filter(|_| self.allowed().fma && self.chance(0.5));
        if let Some(place) = product {
            let mut rest = items.to_vec();
            let (negative, node) = rest.remove(place);
            let (rest_negative, rest) = self.sum(&rest, shape);
            let rest = if rest_negative { self.negated(rest) } else { rest };
            if let Node::Product(factors) = node {
                let cut = self.cut(factors.len(), self.allowed().products);
                let (a, b) = (self.product(&factors[..cut]), self.product(&factors[cut..]));
                let (a, b) = (self.fitted(a, shape), self.fitted(b, shape));
                let a = if negative { self.negated(a) } else { a };
                return (false, self.fused(a, b, rest, shape));
            }
        }
        let cut = self.cut(items.len(), self.allowed().sums);
        let (a_negative, a) = self.sum(&items[..cut], shape);
        let (b_negative, b) = self.sum(&items[cut..], shape);
        match (a_negative, b_negative) {
            (false, false) => (false, self.binary(BinaryOperator::Add, a, b, shape)),
            (true, true) => (true, self.binary(BinaryOperator::Add, a, b, shape)),
            (false, true) => (false, self.difference(a, b, shape)),
            (true, false) => (false, self.difference(b, a, shape)),
        }
    }

    /// a − b, in one of the ways to write that.
    fn difference(&mut self, a: Handle<Expression>, b: Handle<Expression>, shape: Shape) -> Handle<Expression> {
        if self.allowed().sums && self.chance(0.3) {
            let b = self.negated(b);
            return self.binary(BinaryOperator::Add, a, b, shape);
        }
        self.binary(BinaryOperator::Subtract, a, b, shape)
    }

    /// Where a row of operands is cut in two: anywhere, or before the last one.
    fn cut(&mut self, length: usize, anywhere: bool) -> usize {
        if anywhere { self.arithmetic.rng.random_range(1..length) } else { length - 1 }
    }

    /// A product in the shape that its factors give.
    fn product(&mut self, factors: &[(bool, Node)]) -> (Handle<Expression>, Shape) {
        if let [(inverse, node)] = factors {
            let (value, shape) = self.value(node);
            if !*inverse {
                return (value, shape);
            }
            let one = self.splatted(self.arithmetic.one, shape);
            return (self.binary(BinaryOperator::Divide, one, value, shape), shape);
        }
        let cut = self.cut(factors.len(), self.allowed().products);
        let a = self.product(&factors[..cut]);
        if let [(true, node)] = &factors[cut..] {
            if self.chance(0.3) {
                let shape = a.1.or(self.shape_of(node));
                let (a, b) = (self.fitted(a, shape), self.build(node, shape));
                return (self.binary(BinaryOperator::Divide, a, b, shape), shape);
            }
        }
        let b = self.product(&factors[cut..]);
        // A scalar and a vector may be multiplied as they are.
        let shape = a.1.or(b.1);
        (self.binary(BinaryOperator::Multiply, a.0, b.0, shape), shape)
    }

    fn negated(&mut self, expr: Handle<Expression>) -> Handle<Expression> {
        self.append(Expression::Unary { op: UnaryOperator::Negate, expr })
    }

    fn fused(
        &mut self,
        a: Handle<Expression>,
        b: Handle<Expression>,
        c: Handle<Expression>,
        shape: Shape,
    ) -> Handle<Expression> {
        let (arg, arg1) = if self.allowed().swap && self.chance(0.5) { (b, a) } else { (a, b) };
        let fun = MathFunction::Fma;
        let value = self.append(Expression::Math { fun, arg, arg1: Some(arg1), arg2: Some(c), arg3: None });
        self.flushed(value, shape)
    }

    /// An operation with a result of that shape.
    fn binary(
        &mut self,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
        shape: Shape,
    ) -> Handle<Expression> {
        let commutes = matches!(op, BinaryOperator::Add | BinaryOperator::Multiply);
        let swaps = commutes && self.allowed().swap && self.chance(0.5);
        let (left, right) = if swaps { (right, left) } else { (left, right) };
        let value = self.append(Expression::Binary { op, left, right });
        self.flushed(value, shape)
    }

    /// The value, here and there with zero in the place of subnormal numbers, of the same sign or positive.
    fn flushed(&mut self, value: Handle<Expression>, shape: Shape) -> Handle<Expression> {
        if !self.allowed().flush || !self.chance(0.25) {
            return value;
        }
        let bits = self.append(Expression::As { expr: value, kind: ScalarKind::Uint, convert: None });
        let mask = self.splatted(self.arithmetic.exponent_bits, shape);
        let exponent = self.append(Expression::Binary { op: BinaryOperator::And, left: bits, right: mask });
        let none = self.splatted(self.arithmetic.no_bits, shape);
        let condition = self.append(Expression::Binary { op: BinaryOperator::Equal, left: exponent, right: none });
        let zero = if self.chance(0.5) {
            let mask = self.splatted(self.arithmetic.sign_bit, shape);
            let sign = self.append(Expression::Binary { op: BinaryOperator::And, left: bits, right: mask });
            self.append(Expression::As { expr: sign, kind: ScalarKind::Float, convert: None })
        } else {
            self.splatted(self.arithmetic.zero, shape)
        };
        self.append(Expression::Select { condition, accept: zero, reject: value })
    }
}

/// A sum; a factor that two of its items share is taken out of them.
fn factored(mut items: Vec<(bool, Node)>) -> Node {
    for i in 0..items.len() {
        for j in i + 1..items.len() {
            let (Node::Product(a), Node::Product(b)) = (&items[i].1, &items[j].1) else { continue };
            if a.len() < 2 || b.len() < 2 {
                continue;
            }
            let shared = a.iter().enumerate().find_map(|(at, factor)| {
                let other = b.iter().position(|other| other == factor)?;
                Some((at, other))
            });
            let Some((at, other)) = shared else { continue };
            let (mut a, mut b) = (a.clone(), b.clone());
            let factor = a.remove(at);
            b.remove(other);
            let inner = Node::Sum(vec![(items[i].0, Node::Product(a)), (items[j].0, Node::Product(b))]);
            items.remove(j);
            items[i] = (false, Node::Product(vec![factor, (false, inner)]));
            return Node::Sum(items);
        }
    }
    Node::Sum(items)
}

/// The calls of functions within a block.
fn calls(block: &Block) -> usize {
    block
        .iter()
        .map(|statement| match statement {
            Statement::Call { .. } => 1,
            Statement::Block(block) => calls(block),
            Statement::If { accept, reject, .. } => calls(accept) + calls(reject),
            Statement::Switch { cases, .. } => cases.iter().map(|case| calls(&case.body)).sum(),
            Statement::Loop { body, continuing, .. } => calls(body) + calls(continuing),
            _ => 0,
        })
        .sum()
}

/// An expression with all that it rests on.
fn formula(function: &Function, handle: Handle<Expression>) -> String {
    let mut expression = function.expressions[handle].clone();
    let mut inner = Vec::new();
    operands(&mut expression, &mut |operand| inner.push(formula(function, *operand)));
    let head = match &expression {
        Expression::Literal(literal) => format!("{literal:?}"),
        Expression::GlobalVariable(variable) => format!("{variable:?}"),
        Expression::AccessIndex { index, .. } => format!("at {index}"),
        Expression::Unary { op, .. } => format!("{op:?}"),
        Expression::Binary { op, .. } => format!("{op:?}"),
        Expression::Math { fun, .. } => format!("{fun:?}"),
        other => format!("{:?}", std::mem::discriminant(other)),
    };
    format!("{head}({})", inner.join(", "))
}

/// What an expression comes to in f64, without flushing. What is not arithmetic is a number made of its formula, and a vector
/// has the same number in all its places.
fn number(function: &Function, handle: Handle<Expression>) -> f64 {
    let of = |handle: Handle<Expression>| number(function, handle);
    match function.expressions[handle] {
        Expression::Literal(Literal::F32(value)) => f64::from(value),
        Expression::Splat { value, .. } => of(value),
        Expression::Unary { op: UnaryOperator::Negate, expr } => -of(expr),
        Expression::Binary { op: BinaryOperator::Add, left, right } => of(left) + of(right),
        Expression::Binary { op: BinaryOperator::Subtract, left, right } => of(left) - of(right),
        Expression::Binary { op: BinaryOperator::Multiply, left, right } => of(left) * of(right),
        Expression::Binary { op: BinaryOperator::Divide, left, right } => of(left) / of(right),
        Expression::Math { fun: MathFunction::Fma, arg, arg1: Some(arg1), arg2: Some(arg2), .. } => {
            of(arg) * of(arg1) + of(arg2)
        }
        Expression::Select { reject, .. } => of(reject),
        _ => {
            let hash = |hash: u32, byte: u8| hash.wrapping_mul(31).wrapping_add(u32::from(byte));
            0.5 + f64::from(formula(function, handle).bytes().fold(7, hash) % 1009) / 1009.0
        }
    }
}

/// What the entry point stores, in order, outside of any branch.
fn stored(module: &Module) -> Vec<Handle<Expression>> {
    let value = |statement: &Statement| match statement {
        Statement::Store { value, .. } => Some(*value),
        _ => None,
    };
    module.entry_points[0].function.body.iter().filter_map(value).collect()
}

fn parsed(wgsl: &str) -> Module {
    naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(wgsl)))
}

/// Rewrites small kernels. [`rewrite`] and [`inline`] look themselves that what they give is valid.
pub fn self_test() {
    test_values();
    test_statements();
}

/// Rewritten arithmetic means the same, and each way of rewriting does something.
fn test_values() {
    let module = parsed(
        "
        @group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
        @group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

        @compute @workgroup_size(1)
        fn main() {
            let a = x[0];
            let b = x[1];
            let c = x[2];
            let s = a.x;
            let t = b.y;
            let sum = s + t;
            y[0] = (a + b) - (c - a * 2.0) * s + fma(b, c, -a) / t;
            y[1] = vec4<f32>(sum * (s - c.z) / t) * (a - s);
            y[2] = vec4<f32>(s * t + s * c.z - t / (sum + c.z));
            y[3] = (b - sum) * (b - sum) - (a * b) * (c * t);
        }
        ",
    );
    let formulas = |module: &Module| -> Vec<String> {
        stored(module).into_iter().map(|value| formula(&module.entry_points[0].function, value)).collect()
    };
    let numbers = |module: &Module| -> Vec<f64> {
        stored(module).into_iter().map(|value| number(&module.entry_points[0].function, value)).collect()
    };
    let original = (formulas(&module), numbers(&module));
    assert_eq!(original.1.len(), 4);
    let ways = [
        ("sums", Rewriting { sums: true, ..Rewriting::NONE }),
        ("products", Rewriting { products: true, ..Rewriting::NONE }),
        ("distribute", Rewriting { distribute: true, ..Rewriting::NONE }),
        ("fma", Rewriting { fma: true, ..Rewriting::NONE }),
        ("divide", Rewriting { divide: true, ..Rewriting::NONE }),
        ("flush", Rewriting { flush: true, ..Rewriting::NONE }),
        ("swap", Rewriting { swap: true, ..Rewriting::NONE }),
        ("all", Rewriting::ALL),
    ];
    for seed in 0..50 {
        assert_eq!(formulas(&rewrite(&module, Rewriting::NONE, seed)), original.0, "nothing allowed, seed {seed}");
        for (name, rewriting) in ways {
            let found = numbers(&rewrite(&module, rewriting, seed));
            assert_eq!(found.len(), original.1.len(), "{name}, seed {seed}");
            for (found, expected) in found.iter().zip(&original.1) {
                let error = (found - expected).abs();
                assert!(error <= 1e-9 * (1.0 + expected.abs()), "{name}, seed {seed}: {found} in place of {expected}");
            }
        }
    }
    for (name, rewriting) in ways {
        let changes = (0..20).any(|seed| formulas(&rewrite(&module, rewriting, seed)) != original.0);
        assert!(changes, "{name} changes nothing");
    }
    let once = rewrite(&module, Rewriting::ALL, 1);
    assert_eq!(formulas(&once), formulas(&rewrite(&module, Rewriting::ALL, 1)), "a seed gives one module");
}

/// Kernels with all kinds of statements stay valid.
fn test_statements() {
    const WGSL: &str = "
        struct Pair { low: vec4<f32>, high: f32 }

        @group(0) @binding(0) var<storage, read_write> data: array<vec4<f32>>;
        @group(0) @binding(1) var<uniform> factor: f32;
        var<workgroup> shared_bits: array<u32, 64>;
        var<workgroup> votes: atomic<u32>;
        var<private> held: array<f32, 4>;

        fn kept(value: vec4<f32>) -> vec4<f32> {
            return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) & vec4<u32>(0xffffffffu));
        }

        fn early(x: f32) -> f32 {
            if x > 1.0 {
                return x * x;
            }
            return x / 3.0 - 1.0;
        }

        fn is_first(even: bool, index: u32) -> bool {
            return even || index == 0u;
        }

        fn summed(x: vec4<f32>, y: f32) -> Pair {
            const HALF: vec4<f32> = vec4<f32>(0.5);
            var total = HALF;
            for (var i = 0u; i < 3u; i++) {
                total += (x - y) * factor + total * factor;
            }
            let d = x - y;
            return Pair(total + d * d, dot(x, total) / y - x.x);
        }

        fn stored(index: u32, value: vec4<f32>) {
            if index < arrayLength(&data) {
                data[index] = value;
            }
        }

        @compute @workgroup_size(64)
        fn main(@builtin(local_invocation_index) index: u32) {
            let x = data[index];
            held[index % 4u] = x.x * 2.0 + x.y;
            let a = (x.x + x.y) - (x.z - x.w) + held[(index + 1u) % 4u];
            let b = x.x * x.y / x.z * -x.w;
            let c = fma(x, vec4<f32>(a + b), x * b);
            for (var i = 0u; i < 2u; i++) {
                let pair = summed(c * factor + x, a * factor - b * factor);
                stored(index + i, kept(pair.low / pair.high) + early(pair.high));
            }
            if is_first(false, index) {
                atomicAdd(&votes, bitcast<u32>(a));
            }
            switch index {
                case 1u: { shared_bits[index] = atomicLoad(&votes); }
                default: { shared_bits[index] = bitcast<u32>(a * b + a); }
            }
            workgroupBarrier();
            data[index].x += inverseSqrt(max(bitcast<f32>(shared_bits[63u - index]), 1.0));
        }
    ";
    let module = parsed(WGSL);
    let inlined = inline(&module);
    assert_eq!(calls(&inlined.entry_points[0].function.body), 1, "all calls but that of `early` are gone");
    for module in [&module, &inlined] {
        for seed in 0..40 {
            let once = rewrite(module, Rewriting::ALL, seed);
            rewrite(&once, Rewriting::ALL, seed + 1);
        }
    }
}
