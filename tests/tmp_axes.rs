use gpu_layer_norm::*;
fn rnd(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            let mut z = (i ^ (seed << 32)).wrapping_add(0x9e3779b97f4a7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
            z ^= z >> 31;
            ((z >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 3.0
        })
        .collect()
}
// index permutation: kept dims then axes in listed order
fn permute(shape: &[usize], order: &[usize]) -> Vec<usize> {
    let strides: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
    let n: usize = shape.iter().product();
    let dims: Vec<usize> = order.iter().map(|&i| shape[i]).collect();
    (0..n)
        .map(|mut i| {
            let mut o = 0;
            for k in (0..dims.len()).rev() {
                o += i % dims[k] * strides[order[k]];
                i /= dims[k];
            }
            o
        })
        .collect()
}
#[test]
fn run() {
    let device = GpuDevice::new().unwrap();
    for (shape, axes) in [
        (vec![2usize, 12, 5, 4], vec![1isize]),
        (vec![2, 12, 8], vec![1]),
        (vec![3, 4, 5, 8], vec![1, 3]),
        (vec![3, 4, 5, 8], vec![3, 1]),
        (vec![3, 4, 5, 7], vec![0, 2]),
        (vec![6, 5], vec![0]),
        (vec![3, 4, 8], vec![2, 1]),
        (vec![3, 8], vec![]),
        (vec![2, 768, 9, 9], vec![-3]),
        (vec![4, 8, 3], vec![0, 1, 2]),
        (vec![2, 3, 4, 2, 8], vec![1, 3, 4]),
    ] {
        for storage in [StorageType::F32, StorageType::F16] {
            let places: Vec<usize> =
                axes.iter().map(|a| if *a < 0 { (shape.len() as isize + a) as usize } else { *a as usize }).collect();
            let sizes: Vec<usize> = places.iter().map(|&p| shape[p]).collect();
            let kept: Vec<usize> = (0..shape.len()).filter(|i| !places.contains(i)).collect();
            let order: Vec<usize> = kept.iter().chain(&places).copied().collect();
            let map = permute(&shape, &order);
            let n: usize = shape.iter().product();
            let width: usize = sizes.iter().product();
            let x = Tensor::from_f32(shape.clone(), rnd(n, 1)).unwrap().to_storage(storage);
            let dy = Tensor::from_f32(shape.clone(), rnd(n, 2)).unwrap().to_storage(storage);
            let (w, b) = (rnd(width, 3), rnd(width, 4));
            for strategy in [None, Some(Strategy::Resident), Some(Strategy::Streaming), Some(Strategy::Split)] {
                let mut config = LayerNormConfig::new(sizes.clone()).axes(axes.clone());
                if let Some(s) = strategy {
                    config = config.strategy(s);
                }
                let Ok(layer) = GpuLayerNorm::new(&device, &config) else { continue };
                layer.set_weight(&Tensor::from_f32(sizes.clone(), w.clone()).unwrap()).unwrap();
                layer.set_bias(&Tensor::from_f32(sizes.clone(), b.clone()).unwrap()).unwrap();
                let tx = GpuTensor::upload(&device, &x).unwrap();
                let r = layer.forward_for_training(&device, &tx);
                if let Err(Error::Strategy { .. }) = r {
                    continue;
                }
                let (y, st) = r.unwrap_or_else(|e| panic!("{shape:?} {axes:?} {strategy:?} {e}"));
                assert_eq!(st.rstd.shape(), kept.iter().map(|&k| shape[k]).collect::<Vec<_>>());
                let y = y.download().unwrap();
                let xv = x.values();
                let px: Vec<f32> = map.iter().map(|&i| xv[i]).collect();
                let dv = dy.values();
                let pd: Vec<f32> = map.iter().map(|&i| dv[i]).collect();
                let e = reference::layer_norm(&px, width, Some(&w), Some(&b), 1e-5, false);
                let tol = if storage == StorageType::F32 { 2e-6 } else { 2e-3 };
                let yv = y.values();
                for (k, &i) in map.iter().enumerate() {
                    assert!(
                        (yv[i] as f64 - e[k]).abs() < tol * (1.0 + e[k].abs()),
                        "{shape:?} {axes:?} {storage:?} {strategy:?} {k}: {} {}",
                        yv[i],
                        e[k]
                    );
                }
                let r = layer.backward(&device, &tx, &GpuTensor::upload(&device, &dy).unwrap(), Some(&st));
                if let Err(Error::Strategy { .. }) = r {
                    continue;
                }
                let g = r.unwrap_or_else(|e| panic!("{shape:?} {axes:?} {strategy:?} {e}"));
                let e = reference::layer_norm_backward(&px, &pd, width, Some(&w), 1e-5, false);
                let dx = g.input.download().unwrap();
                let dx = dx.values();
                for (k, &i) in map.iter().enumerate() {
                    assert!(
                        (dx[i] as f64 - e.input[k]).abs() < tol * (1.0 + e.input[k].abs()),
                        "{shape:?} {axes:?} {storage:?} {strategy:?} dx {k}: {} {}",
                        dx[i],
                        e.input[k]
                    );
                }
                for (a, e) in [(g.weight.unwrap(), e.weight), (g.bias.unwrap(), e.bias)] {
                    let a = a.download().unwrap();
                    assert_eq!(a.shape(), sizes);
                    for (a, e) in a.values().iter().zip(&e) {
                        assert!((*a as f64 - e).abs() < 1e-4 * (1.0 + e.abs()), "{shape:?} {axes:?} param {a} {e}");
                    }
                }
            }
        }
    }
    for (groups, shape) in [
        (2usize, vec![3usize, 4, 5, 5]),
        (4, vec![2, 4, 8]),
        (1, vec![2, 6, 4]),
        (8, vec![2, 32, 8, 8]),
        (3, vec![2, 3, 1]),
    ] {
        for storage in [StorageType::F32, StorageType::Bf16] {
            let sample = shape[1..].to_vec();
            let c = shape[1];
            let n: usize = shape.iter().product();
            let layer =
                GpuLayerNorm::new(&device, &LayerNormConfig::group_norm(groups, sample).parameter_storage(storage))
                    .unwrap();
            let (w, b) = (
                Tensor::from_f32([c], rnd(c, 3)).unwrap().to_storage(storage),
                Tensor::from_f32([c], rnd(c, 4)).unwrap().to_storage(storage),
            );
            layer.set_weight(&w).unwrap();
            layer.set_bias(&b).unwrap();
            let x = rnd(n, 1);
            let y = layer.run(&device, &Tensor::from_f32(shape.clone(), x.clone()).unwrap()).unwrap();
            let e = reference::group_norm(
                &x,
                c,
                shape[2..].iter().product(),
                groups,
                Some(&w.values()),
                Some(&b.values()),
                1e-5,
            );
            for (k, (a, e)) in y.values().iter().zip(&e).enumerate() {
                assert!((*a as f64 - e).abs() < 3e-6, "group {groups} {shape:?} {k}: {a} {e}");
            }
            let dy = rnd(n, 7);
            let up = |v: &Vec<f32>| {
                GpuTensor::upload(&device, &Tensor::from_f32(shape.clone(), v.clone()).unwrap()).unwrap()
            };
            let g = layer.backward(&device, &up(&x), &up(&dy), None).unwrap();
            let e = reference::group_norm_backward(
                &x,
                &dy,
                c,
                shape[2..].iter().product(),
                groups,
                Some(&w.values()),
                1e-5,
            );
            for (what, a, e) in
                [("dx", g.input, e.input), ("dw", g.weight.unwrap(), e.weight), ("db", g.bias.unwrap(), e.bias)]
            {
                let a = a.download().unwrap();
                let tol = if storage == StorageType::F32 || what == "dx" { 3e-6 } else { 1e-2 };
                let m = e.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                for (k, (a, e)) in a.values().iter().zip(&e).enumerate() {
                    assert!((*a as f64 - e).abs() < tol * (m + 1.0), "group {groups} {shape:?} {what} {k}: {a} {e}");
                }
            }
        }
    }
}
