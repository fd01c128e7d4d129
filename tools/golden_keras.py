#!/usr/bin/env python3
"""Writes tests/golden/keras: weight files of Keras's own NASNet and what is in them.

    pip install tensorflow-cpu==2.15.1        (Python 3.11; brings Keras 2.15 and h5py)
    python3 tools/golden_keras.py [CASE ...]

CASE.h5 is what Keras 2 writes with `save_weights`, the form of the published NASNet-*.h5: a group a layer,
attributes `layer_names` and `weight_names`. A case with `whole` is what `model.save` writes, the same
below the group `model_weights`. Beside each lies CASE.safetensors with every weight of the model as
`<layer>/<weight>` (kernel, depthwise_kernel, gamma, ...), and Keras's `logits` for `image`, for
information: Keras pads pools with zeros, which no other NASNet does.

HDF5 spends two kilobytes a layer on structure, on layers without weights too: 0.9 MB for 0.2 MB of
weights. So one case is kept; the others are made when named, and `--out` says where to. The weights
of small cases are multiples of 1/64, which compress well where the repository is stored.
`--forms` writes form_*.h5 and refused_*.h5, other forms of the format and what is none, without Keras: see there.
`--names FILE.tsv` writes layer, weight and shape of NASNetMobile and NASNetLarge as Keras orders them.
"""
import argparse, json, os
from importlib.metadata import version

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
import numpy as np

SMALL = dict(penultimate_filters=96, num_blocks=1, stem_block_filters=8, filter_multiplier=2, classes=7)
CASES = dict(
    mobile=dict(SMALL, skip_reduction=False),
    # Made when named.
    large=dict(SMALL, skip_reduction=True, whole=True, big=True),
    blocks=dict(SMALL, num_blocks=2, skip_reduction=True, big=True),
    NASNetMobile=dict(penultimate_filters=1056, num_blocks=4, stem_block_filters=32, filter_multiplier=2, classes=1000,
                      skip_reduction=False, size=224, big=True),
    NASNetLarge=dict(penultimate_filters=4032, num_blocks=6, stem_block_filters=96, filter_multiplier=2, classes=1000,
                     skip_reduction=True, size=331, big=True),
)


def network(case):
    settings = {k: v for k, v in case.items() if k not in ['whole', 'size', 'big']}
    size = case.get('size', 32)
    return nasnet.NASNet(
        input_shape=(size, size, 3), weights=None, classifier_activation=None, **settings)


def weights(model):
    """Pairs of `<layer>/<weight>` and variable, in the model's order."""
    for layer in model.layers:
        for variable in layer.weights:
            path = variable.name.removesuffix(':0').split('/')
            yield f'{layer.name}/{path[-1]}', variable


def fill(model, rng, grain):
    """Random weights, then moving statistics near those of a batch, layer by layer in training mode."""
    for name, variable in weights(model):
        leaf, shape = name.split('/')[-1], variable.shape.as_list()
        if leaf == 'gamma':
            value = rng.uniform(.6, 1.4, shape)
        elif leaf in ['beta', 'bias']:
            value = rng.normal(0, .2, shape)
        elif leaf == 'depthwise_kernel':
            value = rng.normal(0, 1, shape) * np.sqrt(2 / (shape[0] * shape[1]))
        elif leaf in ['kernel', 'pointwise_kernel']:
            value = rng.normal(0, 1, shape) * np.sqrt(2 / np.prod(shape[:-1]))
        else:
            continue
        variable.assign(value)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.  # one pass makes the moving statistics the batch's
    model(rng.uniform(-1, 1, [4, *model.input_shape[1:]]).astype(np.float32), training=True)
    for norm in norms:
        norm.momentum = .9997
        mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
        norm.moving_mean.assign(mean + np.sqrt(variance + 1e-3) * rng.normal(0, .15, mean.shape))
        norm.moving_variance.assign(variance * rng.uniform(.75, 1.5, mean.shape) + 2e-2)
    for _, variable in weights(model):
        variable.assign(np.round(variable.numpy() * grain) / grain)


def write_safetensors(path, tensors, about):
    entries, parts, at = {'__metadata__': {k: str(v) for k, v in about.items()}}, [], 0
    for name, value in sorted(tensors.items()):
        data = np.ascontiguousarray(value, dtype='<f4').tobytes()
        entries[name] = dict(dtype='F32', shape=list(value.shape), data_offsets=[at, at + len(data)])
        parts.append(data)
        at += len(data)
    head = json.dumps(entries, separators=(',', ':')).encode()
    head += b' ' * (-len(head) % 8)
    with open(path, 'wb') as file:
        file.write(len(head).to_bytes(8, 'little') + head + b''.join(parts))


def make(name, case, folder, seed):
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    keras.backend.clear_session()  # layers without a name of their own are numbered from 1 again
    model = network(case)
    fill(model, rng, 2**20 if case.get('size') else 64)
    path = os.path.join(folder, name + '.h5')
    model.save(path, include_optimizer=False) if case.get('whole') else model.save_weights(path)
    image = rng.uniform(-1, 1, [1, *model.input_shape[1:]]).astype(np.float32)
    tensors = {key: variable.numpy() for key, variable in weights(model)}
    assert len(tensors) == len(model.weights), 'two weights share a name'
    # Read back into a second network: what lies in the file is what the logits were made with.
    logits = model(image, training=False).numpy()
    keras.backend.clear_session()
    again = network(case)
    again.load_weights(path)
    difference = np.abs(again(image, training=False).numpy() - logits).max()
    assert difference < 1e-5 and np.isfinite(logits).all() and logits.std() > .05, (difference, logits)
    about = dict(source='keras.applications.nasnet, random weights', case=name, seed=seed, settings=json.dumps(case),
                 **{package: version(package) for package in ['tensorflow-cpu', 'keras', 'h5py', 'numpy']})
    if case.get('size'):  # the weights of a full-size file are in the file
        tensors = {}
    write_safetensors(os.path.join(folder, name + '.safetensors'), dict(tensors, image=image, logits=logits), about)
    print(f'{name}: {len(model.weights)} weights, {os.path.getsize(path):,} bytes in .h5, logits deviate by {logits.std():.2f}, '
          f'{difference:.1g} after reading back')


def write_forms(folder):
    """Two layers as older and newer programs write them; all values are 0, 1, 2 ..."""
    import h5py
    dense = dict(kernel=np.arange(6, dtype='<f4').reshape(2, 3), bias=np.arange(3, dtype='<f4'))
    half = dict(gamma=np.arange(4, dtype='<f2'), beta=np.arange(4, dtype='<f8'))

    def write(group, layer, weights, name, text):
        inner = group.create_group(layer)
        paths = [name.format(layer=layer, weight=weight) for weight in weights]
        inner.attrs['weight_names'] = text(paths)
        for path, value in zip(paths, weights.values()):
            inner[path] = value

    fixed = lambda texts: np.array([text.encode() for text in texts])
    for case, whole, name, libver in [
        # Keras 2.0: texts of fixed length. The network was built twice; its list of layers is in parts.
        ('old', False, '{layer}_1/{weight}:0', 'earliest'),
        # Keras 3's `model.save('x.h5')`, in HDF5's latest form.
        ('new', True, '{layer}/{weight}', 'latest'),
    ]:
        with h5py.File(os.path.join(folder, f'form_{case}.h5'), 'w', libver=libver) as file:
            top = file.create_group('model_weights') if whole else file
            if whole:
                top.attrs['layer_names'] = ['input', 'dense', 'half']
            else:
                top.attrs['layer_names0'], top.attrs['layer_names1'] = fixed(['input', 'dense']), fixed(['half'])
            text = list if whole else fixed
            write(top, 'dense', dense, name, text)
            write(top, 'half', half, name, text)
            top.create_group('input').attrs['weight_names'] = []
            if whole:
                file.attrs['model_config'] = '{}'
                file.create_group('optimizer_weights')['iteration'] = np.int64(7)
    # What is refused, with the reason.
    for case, value, options in [('chunked', dense['kernel'], dict(chunks=(1, 3), compression='gzip')),
                                 ('big_endian', dense['kernel'].astype('>f4'), {}),
                                 ('integers', np.arange(3), {}), ('unwritten', None, dict(shape=3, dtype='<f4'))]:
        with h5py.File(os.path.join(folder, f'refused_{case}.h5'), 'w') as file:
            file.attrs['layer_names'] = ['dense']
            inner = file.create_group('dense')
            inner.attrs['weight_names'] = ['dense/kernel:0']
            inner.create_dataset('dense/kernel:0', data=value, **options)
    with h5py.File(os.path.join(folder, 'refused_keras_3.h5'), 'w') as file:
        file['layers/dense/vars/0'] = dense['kernel']
    with h5py.File(os.path.join(folder, 'refused_nested.h5'), 'w') as file:
        file.attrs['layer_names'] = ['inner']
        inner = file.create_group('inner')
        inner.attrs['weight_names'] = ['a/kernel:0', 'b/kernel:0']
        for path in ['a/kernel:0', 'b/kernel:0']:
            inner[path] = dense['kernel']


def write_names(path):
    with open(path, 'w') as file:
        for name in ['NASNetMobile', 'NASNetLarge']:
            keras.backend.clear_session()
            model = getattr(keras.applications, name)(weights=None)
            for key, variable in weights(model):
                layer, weight = key.rsplit('/', 1)
                print(name, layer, weight, 'x'.join(map(str, variable.shape)), sep='\t', file=file)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('cases', nargs='*', help=', '.join(CASES))
    parser.add_argument('--out', default=os.path.join(os.path.dirname(__file__), '..', 'tests', 'golden', 'keras'))
    parser.add_argument('--seed', type=int, default=5)
    parser.add_argument('--names')
    parser.add_argument('--forms', action='store_true')
    args = parser.parse_args()
    if args.forms:
        raise SystemExit(write_forms(args.out))
    import keras
    from keras.src.applications import nasnet  # the public module shows the two published sizes alone
    if args.names:
        write_names(args.names)
    for name in args.cases or ([] if args.names else [n for n, c in CASES.items() if not c.get('big')]):
        make(name, CASES[name], args.out, args.seed)
