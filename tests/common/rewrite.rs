//! What a compiler for GPUs may make of float arithmetic, done to naga's IR.
//!
//! WGSL lets a compiler reassociate, factor and distribute sums and products, contract them to fused operations and undo those,
//! divide by multiplying with a reciprocal, and flush subnormal results. NVIDIA's does some of that, the software adapters do
//! none. Here each of these is done at random, from a seed, within the expressions of each function. Calls are a boundary, and so
//! are variables, conversions of bits, selections and memory, although a compiler that inlines may look through calls.

use naga::{
    Arena, BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, MathFunction, Module, Scalar,
    ScalarKind, Span, Statement, SwitchCase, TypeInner, UnaryOperator, VectorSize,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// The module with the float arithmetic of all its functions rewritten.
pub fn rewrite(module: &Module, seed: u64) -> Module {
    let mut rng = StdRng::seed_from_u64(seed);
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all())
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(module)
        .expect("a valid module");
    let mut result = module.clone();
    for (handle, function) in module.functions.iter() {
        let info = &info[handle];
        let types = |handle: Handle<Expression>| float_type(info[handle].ty.inner_with(&module.types));
        result.functions[handle] = Rewriter::new(function, &types, &mut rng).run();
    }
    for (index, entry) in module.entry_points.iter().enumerate() {
        let info = info.get_entry_point(index);
        let types = |handle: Handle<Expression>| float_type(info[handle].ty.inner_with(&module.types));
        result.entry_points[index].function = Rewriter::new(&entry.function, &types, &mut rng).run();
    }
    result
}

/// A float, or a vector of so many.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Float {
    Scalar,
    Vector(VectorSize),
}

fn float_type(inner: &TypeInner) -> Option<Float> {
    match *inner {
        TypeInner::Scalar(Scalar::F32) => Some(Float::Scalar),
        TypeInner::Vector { size, scalar: Scalar::F32 } => Some(Float::Vector(size)),
        _ => None,
    }
}

/// A signed product of expressions of the old function, each with whether it divides.
#[derive(Clone)]
struct Term {
    negative: bool,
    factors: Vec<(Handle<Expression>, bool)>,
}

/// Sums are looked into this deep.
const DEPTH: u32 = 4;
/// No sum grows beyond this.
const MOST_TERMS: usize = 12;

struct Rewriter<'a> {
    old: &'a Function,
    types: &'a dyn Fn(Handle<Expression>) -> Option<Float>,
    rng: &'a mut StdRng,
    new: Arena<Expression>,
    map: Vec<Option<Handle<Expression>>>,
    one: Handle<Expression>,
    zero: Handle<Expression>,
    exponent_bits: Handle<Expression>,
    no_bits: Handle<Expression>,
}

impl<'a> Rewriter<'a> {
    fn new(old: &'a Function, types: &'a dyn Fn(Handle<Expression>) -> Option<Float>, rng: &'a mut StdRng) -> Self {
        let mut new = Arena::new();
        let [one, zero, exponent_bits, no_bits] =
            [Literal::F32(1.0), Literal::F32(0.0), Literal::U32(0x7f80_0000), Literal::U32(0)]
                .map(|literal| new.append(Expression::Literal(literal), Span::UNDEFINED));
        let map = vec![None; old.expressions.len()];
        Self { old, types, rng, new, map, one, zero, exponent_bits, no_bits }
    }

    fn run(mut self) -> Function {
        // What no statement emits comes first: literals, constants, variables, results of calls.
        let mut emitted = vec![false; self.old.expressions.len()];
        mark_emitted(&self.old.body, &mut emitted);
        for (handle, expression) in self.old.expressions.iter() {
            if !emitted[handle.index()] {
                let copy = self.with_new_operands(expression);
                self.map[handle.index()] = Some(self.new.append(copy, Span::UNDEFINED));
            }
        }
        let body = self.block(&self.old.body);
        let mut function = self.old.clone();
        function.body = body;
        let mut variables = Arena::new();
        for (_, variable) in self.old.local_variables.iter() {
            let init = variable.init.map(|init| self.at(init));
            variables.append(LocalVariable { init, ..variable.clone() }, Span::UNDEFINED);
        }
        function.local_variables = variables;
        function.named_expressions.clear();
        function.expressions = self.new;
        function
    }

    fn at(&self, old: Handle<Expression>) -> Handle<Expression> {
        self.map[old.index()].expect("an expression is emitted before it is used")
    }

    fn add(&mut self, expression: Expression) -> Handle<Expression> {
        self.new.append(expression, Span::UNDEFINED)
    }

    fn block(&mut self, old: &Block) -> Block {
        let mut block = Block::new();
        for (statement, span) in old.span_iter() {
            let statement = self.statement(statement);
            block.push(statement, *span);
        }
        block
    }

    fn statement(&mut self, old: &Statement) -> Statement {
        match old {
            Statement::Emit(range) => {
                let start = self.new.len();
                for handle in range.clone() {
                    let new = self.expression(handle);
                    self.map[handle.index()] = Some(new);
                }
                Statement::Emit(self.new.range_from(start))
            }
            Statement::Block(block) => Statement::Block(self.block(block)),
            Statement::If { condition, accept, reject } => {
                let condition = self.at(*condition);
                Statement::If { condition, accept: self.block(accept), reject: self.block(reject) }
            }
            Statement::Switch { selector, cases } => Statement::Switch {
                selector: self.at(*selector),
                cases: cases
                    .iter()
                    .map(|case| SwitchCase {
                        value: case.value,
                        body: self.block(&case.body),
                        fall_through: case.fall_through,
                    })
                    .collect(),
            },
            Statement::Loop { body, continuing, break_if } => {
                let (body, continuing) = (self.block(body), self.block(continuing));
                Statement::Loop { body, continuing, break_if: break_if.map(|it| self.at(it)) }
            }
            Statement::Return { value } => Statement::Return { value: value.map(|it| self.at(it)) },
            Statement::Store { pointer, value } => {
                Statement::Store { pointer: self.at(*pointer), value: self.at(*value) }
            }
            Statement::Atomic { pointer, fun, value, result } => {
                assert!(!matches!(fun, naga::AtomicFunction::Exchange { compare: Some(_) }), "no kernel compares");
                let (pointer, value) = (self.at(*pointer), self.at(*value));
                Statement::Atomic { pointer, fun: *fun, value, result: result.map(|it| self.at(it)) }
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                Statement::WorkGroupUniformLoad { pointer: self.at(*pointer), result: self.at(*result) }
            }
            Statement::Call { function, arguments, result } => Statement::Call {
                function: *function,
                arguments: arguments.iter().map(|it| self.at(*it)).collect(),
                result: result.map(|it| self.at(it)),
            },
            Statement::SubgroupGather { mode, argument, result } => {
                let mode = match *mode {
                    naga::GatherMode::ShuffleXor(mask) => naga::GatherMode::ShuffleXor(self.at(mask)),
                    mode => panic!("no kernel gathers by {mode:?}"),
                };
                Statement::SubgroupGather { mode, argument: self.at(*argument), result: self.at(*result) }
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let (argument, result) = (self.at(*argument), self.at(*result));
                Statement::SubgroupCollectiveOperation { op: *op, collective_op: *collective_op, argument, result }
            }
            Statement::Break | Statement::Continue | Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) => {
                old.clone()
            }
            other => panic!("no kernel has {other:?}"),
        }
    }

    fn with_new_operands(&self, old: &Expression) -> Expression {
        let at = |handle: &mut Handle<Expression>| *handle = self.at(*handle);
        let mut new = old.clone();
        match &mut new {
            Expression::Compose { components, .. } => components.iter_mut().for_each(at),
            Expression::Access { base, index } => [base, index].into_iter().for_each(at),
            Expression::AccessIndex { base: operand, .. }
            | Expression::Splat { value: operand, .. }
            | Expression::Swizzle { vector: operand, .. }
            | Expression::Load { pointer: operand }
            | Expression::Unary { expr: operand, .. }
            | Expression::As { expr: operand, .. }
            | Expression::Relational { argument: operand, .. }
            | Expression::ArrayLength(operand) => at(operand),
            Expression::Binary { left, right, .. } => [left, right].into_iter().for_each(at),
            Expression::Select { condition, accept, reject } => [condition, accept, reject].into_iter().for_each(at),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                at(arg);
                [arg1, arg2, arg3].into_iter().flatten().for_each(at);
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
            other => panic!("no kernel has {other:?}"),
        }
        new
    }

    fn expression(&mut self, handle: Handle<Expression>) -> Handle<Expression> {
        let old = &self.old.expressions[handle];
        let ty = (self.types)(handle);
        match (ty, old) {
            (Some(ty), Expression::Binary { op, .. }) if is_arithmetic(*op) => self.rebuilt(handle, ty),
            (Some(ty), Expression::Unary { op: UnaryOperator::Negate, .. })
            | (Some(ty), Expression::Math { fun: MathFunction::Fma, .. }) => self.rebuilt(handle, ty),
            _ => {
                let copy = self.with_new_operands(old);
                self.add(copy)
            }
        }
    }

    fn rebuilt(&mut self, handle: Handle<Expression>, ty: Float) -> Handle<Expression> {
        let mut terms = self.terms(handle, DEPTH);
        self.factor(&mut terms);
        terms.shuffle(self.rng);
        self.sum(&terms, ty)
    }

    /// The terms of a sum; products are multiplied out now and then.
    fn terms(&mut self, handle: Handle<Expression>, depth: u32) -> Vec<Term> {
        let whole = Term { negative: false, factors: vec![(handle, false)] };
        // What is not of this function's own arithmetic is left as it is. A vector's scalar factors are looked into too.
        if depth == 0 || (self.types)(handle).is_none() || !self.rng.random_bool(0.9) && depth < DEPTH {
            return vec![whole];
        }
        match self.old.expressions[handle] {
            Expression::Binary { op: op @ (BinaryOperator::Add | BinaryOperator::Subtract), left, right } => {
                let mut terms = self.terms(left, depth - 1);
                let mut others = self.terms(right, depth - 1);
                if op == BinaryOperator::Subtract {
                    others.iter_mut().for_each(|term| term.negative = !term.negative);
                }
                terms.append(&mut others);
                if terms.len() > MOST_TERMS { vec![whole] } else { terms }
            }
            Expression::Unary { op: UnaryOperator::Negate, expr } => {
                let mut terms = self.terms(expr, depth - 1);
                terms.iter_mut().for_each(|term| term.negative = !term.negative);
                terms
            }
            Expression::Binary { op: BinaryOperator::Multiply, left, right } => {
                self.product(left, right, depth).unwrap_or_else(|| vec![whole])
            }
            Expression::Binary { op: BinaryOperator::Divide, left, right } => {
                let mut terms = self.terms(left, depth - 1);
                terms.iter_mut().for_each(|term| term.factors.push((right, true)));
                terms
            }
            Expression::Math { fun: MathFunction::Fma, arg, arg1: Some(arg1), arg2: Some(arg2), .. } => {
                let product = self.product(arg, arg1, depth);
                let mut terms = product
                    .unwrap_or_else(|| vec![Term { negative: false, factors: vec![(arg, false), (arg1, false)] }]);
                let mut others = self.terms(arg2, depth - 1);
                terms.append(&mut others);
                terms
            }
            _ => vec![whole],
        }
    }

    /// The terms of a product of sums, multiplied out.
    fn product(&mut self, left: Handle<Expression>, right: Handle<Expression>, depth: u32) -> Option<Vec<Term>> {
        let (left, right) = (self.terms(left, depth - 1), self.terms(right, depth - 1));
        if left.len() * right.len() > MOST_TERMS {
            return None;
        }
        let pair = |(a, b): (&Term, &Term)| Term {
            negative: a.negative != b.negative,
            factors: a.factors.iter().chain(&b.factors).copied().collect(),
        };
        Some(left.iter().flat_map(|a| right.iter().map(move |b| (a, b))).map(pair).collect())
    }

    /// Takes a factor that two terms share out of both, now and then: the sum of what is left becomes a factor.
    fn factor(&mut self, terms: &mut [Term]) {
        // The order of factors decides what is taken together first.
        for term in terms {
            term.factors.shuffle(self.rng);
        }
    }

    fn sum(&mut self, terms: &[Term], ty: Float) -> Handle<Expression> {
        let value = self.signed_sum(terms, ty);
        let (negative, value) = value;
        if negative { self.add(Expression::Unary { op: UnaryOperator::Negate, expr: value }) } else { value }
    }

    /// A sum in any association, and whether it is still to be negated.
    fn signed_sum(&mut self, terms: &[Term], ty: Float) -> (bool, Handle<Expression>) {
        if let [term] = terms {
            let value = self.term(&term.factors, ty);
            return (term.negative, self.flushed(value, ty));
        }
        // A shared factor of two terms that stand together is taken out.
        if let [a, b] = terms {
            let shared = a.factors.iter().find(|factor| b.factors.contains(factor)).copied();
            if let Some(shared) = shared.filter(|_| a.factors.len() > 1 && b.factors.len() > 1) {
                if self.rng.random_bool(0.6) {
                    let rest = |term: &Term| {
                        let mut factors = term.factors.clone();
                        let place = factors.iter().position(|it| *it == shared).expect("it is shared");
                        factors.remove(place);
                        Term { negative: term.negative, factors }
                    };
                    let inner = self.sum(&[rest(a), rest(b)], ty);
                    let factor = self.operand(shared, ty);
                    let factor = self.splatted(factor, shared.0, ty);
                    let product = self.binary(BinaryOperator::Multiply, inner, factor);
                    return (false, self.flushed(product, ty));
                }
            }
        }
        // A product and the rest as one fused operation.
        if terms[0].factors.len() > 1 && self.rng.random_bool(0.4) {
            let rest = self.sum(&terms[1..], ty);
            let factors = terms[0].factors.clone();
            let (last, others) = factors.split_last().expect("there are two");
            let mut a = self.term(others, ty);
            if terms[0].negative {
                a = self.add(Expression::Unary { op: UnaryOperator::Negate, expr: a });
            }
            let b = self.operand(*last, ty);
            let b = self.splatted(b, last.0, ty);
            let fused =
                Expression::Math { fun: MathFunction::Fma, arg: a, arg1: Some(b), arg2: Some(rest), arg3: None };
            let fused = self.add(fused);
            return (false, self.flushed(fused, ty));
        }
        let cut = self.rng.random_range(1..terms.len());
        let (a_negative, a) = self.signed_sum(&terms[..cut], ty);
        let (b_negative, b) = self.signed_sum(&terms[cut..], ty);
        let (negative, value) = match (a_negative, b_negative) {
            (false, false) => (false, self.binary(BinaryOperator::Add, b, a)),
            (true, true) => (true, self.binary(BinaryOperator::Add, a, b)),
            (false, true) => (false, self.binary(BinaryOperator::Subtract, a, b)),
            (true, false) => (false, self.binary(BinaryOperator::Subtract, b, a)),
        };
        (negative, self.flushed(value, ty))
    }

    /// A product in any association; of the sum's type.
    fn term(&mut self, factors: &[(Handle<Expression>, bool)], ty: Float) -> Handle<Expression> {
        if let [factor] = factors {
            let value = self.operand(*factor, ty);
            return self.splatted(value, factor.0, ty);
        }
        let cut = self.rng.random_range(1..factors.len());
        let (a, b) = (self.term(&factors[..cut], ty), self.term(&factors[cut..], ty));
        let value = self.binary(BinaryOperator::Multiply, a, b);
        self.flushed(value, ty)
    }

    /// An operand as it was emitted, or its reciprocal.
    fn operand(&mut self, (handle, divides): (Handle<Expression>, bool), _: Float) -> Handle<Expression> {
        let value = self.at(handle);
        if !divides {
            return value;
        }
        let ty = (self.types)(handle).expect("a float divides");
        let one = self.of_type(self.one, ty);
        self.binary(BinaryOperator::Divide, one, value)
    }

    /// A scalar as a vector where the sum is one.
    fn splatted(&mut self, value: Handle<Expression>, old: Handle<Expression>, ty: Float) -> Handle<Expression> {
        match ((self.types)(old), ty) {
            (Some(Float::Scalar), Float::Vector(_)) => self.of_type(value, ty),
            _ => value,
        }
    }

    fn of_type(&mut self, scalar: Handle<Expression>, ty: Float) -> Handle<Expression> {
        match ty {
            Float::Scalar => scalar,
            Float::Vector(size) => self.add(Expression::Splat { size, value: scalar }),
        }
    }

    fn binary(
        &mut self,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Handle<Expression> {
        self.add(Expression::Binary { op, left, right })
    }

    /// The value, with 0 in the place of subnormal numbers now and then.
    fn flushed(&mut self, value: Handle<Expression>, ty: Float) -> Handle<Expression> {
        if !self.rng.random_bool(0.3) {
            return value;
        }
        let (zero, mask, no_bits) =
            (self.of_type(self.zero, ty), self.of_type(self.exponent_bits, ty), self.of_type(self.no_bits, ty));
        let bits = self.add(Expression::As { expr: value, kind: ScalarKind::Uint, convert: None });
        let exponent = self.binary(BinaryOperator::And, bits, mask);
        let condition = self.binary(BinaryOperator::Equal, exponent, no_bits);
        self.add(Expression::Select { condition, accept: zero, reject: value })
    }
}

fn is_arithmetic(op: BinaryOperator) -> bool {
    use BinaryOperator::{Add, Divide, Multiply, Subtract};
    matches!(op, Add | Subtract | Multiply | Divide)
}

fn mark_emitted(block: &Block, emitted: &mut [bool]) {
    for statement in block.iter() {
        match statement {
            Statement::Emit(range) => range.clone().for_each(|handle| emitted[handle.index()] = true),
            Statement::Block(block) => mark_emitted(block, emitted),
            Statement::If { accept, reject, .. } => {
                mark_emitted(accept, emitted);
                mark_emitted(reject, emitted);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| mark_emitted(&case.body, emitted)),
            Statement::Loop { body, continuing, .. } => {
                mark_emitted(body, emitted);
                mark_emitted(continuing, emitted);
            }
            _ => {}
        }
    }
}
