#!/usr/bin/env python3
"""Writes tests/golden/tf_slim: checkpoints of TF-slim's own NASNet and what slim computes with them.

    pip install tensorflow-cpu==2.15.1 tf-slim==1.1.0 six       (Python 3.11)
    pip download --no-deps --no-binary :all: tf-models-research-object-detection==2.8.0.post1   (unpack it)
    python3 tools/golden_tf_slim.py tf_models_research_object_detection-2.8.0.post1/slim [CASE ...]

The argument is the folder that holds `nets/nasnet`. Without cases all small ones are made; `--out`
says where to, `--check` loads each checkpoint that is there and compares, writing nothing. A case is a
folder with `model.ckpt.*`, a checkpoint in TensorFlow's V2 format as `tf.train.Saver` writes it, and
`golden.safetensors`: `image` and outputs, all channels last as TensorFlow has them, in inference mode
(moving statistics, no dropout, no drop path). Cell outputs are named for the cell's scope; `pool`
is the pooled vector that the classifier reads, after ReLU.

Weights are random and seeded. Moving statistics come from one batch in training mode, so that
activations stay of order 1 at any depth, and are then moved off these values: a reader that swaps
mean and variance, or drops gamma, fails. The seed fixes values only up to the rounding of the machine.

The auxiliary head exists in slim's training graph alone. `aux_logits` are from `_build_nasnet_base`
with `is_training` on but batch norm, dropout and drop path in inference mode, which is how a frozen
network is trained; the same graph's logits are checked against those of the inference graph. Its two
widths, 128 and 768, are constants in slim, which makes 0.4 MB at the least: `cifar_aux` and the full-size
cases are made only when named.

`aux` is that head alone, small enough to keep: `aux.json` has the logits and how to make the weights and
the map, which follow from a formula that any language computes the same. In float64, then rounded to
float32, element i (in TensorFlow's order, from 0) of a tensor is offset + scale * u, where

    h = (i + number * 2^22) * 2654435761 mod 2^32,    h ^= h >> 15,
    h = h * 2246822519 mod 2^32,    h ^= h >> 13,    u = (h >> 8) / 2^23 - 1.

Slim's own `_build_nasnet_base` picks the map, applies its ReLU and builds the head; its cells are stood in
for, the one that the head should read by the map, all others by NaN.
"""
import argparse, json, os, sys, types
from importlib.metadata import version

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.ERROR)


class HParams:
    """What the nets use of tf.contrib.training.HParams."""

    def __init__(self, **values):
        self.__dict__.update(values)

    def set_hparam(self, name, value):
        assert name in self.__dict__, name
        self.__dict__[name] = value


def stand_in():
    """Provides two modules that TensorFlow 2.15 lacks: tf.contrib, and tf_keras for tf.layers' batch norm."""
    training = types.ModuleType('tensorflow.contrib.training')
    training.HParams = HParams
    contrib = types.ModuleType('tensorflow.contrib')
    contrib.training, contrib.__path__ = training, []
    sys.modules.update({'tensorflow.contrib': contrib, 'tensorflow.contrib.training': training})
    import keras.src.legacy_tf_layers.normalization as normalization
    for name in ['tf_keras', 'tf_keras.legacy_tf_layers']:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    sys.modules['tf_keras'].legacy_tf_layers = sys.modules['tf_keras.legacy_tf_layers']
    sys.modules['tf_keras.legacy_tf_layers'].normalization = normalization
    sys.modules['tf_keras.legacy_tf_layers.normalization'] = normalization


# sizes: height and width of each golden, the first in golden.safetensors, others with the size in the name.
CASES = dict(
    cifar=dict(form='cifar', num_cells=6, num_conv_filters=2, classes=10, sizes=[(12, 12), (13, 10)]),
    mobile=dict(form='mobile', num_cells=3, num_conv_filters=4, stem_multiplier=.25, classes=13, sizes=[(56, 56)], slots=True, shards=3),
    large=dict(form='large', num_cells=3, num_conv_filters=4, stem_multiplier=.25, classes=13, sizes=[(37, 43)], shards=2),
    strided=dict(form='strided', num_cells=3, num_conv_filters=8, stem_multiplier=.25, classes=7, sizes=[(48, 41)], shards=2),
    # Not small, made when named.
    cifar_aux=dict(form='cifar', num_cells=3, num_conv_filters=2, classes=10, sizes=[(12, 12)], aux=True, big=True),
    full_mobile=dict(form='mobile', num_cells=12, num_conv_filters=44, stem_multiplier=1., classes=1001, sizes=[(224, 224)], aux=True, big=True),
    full_large=dict(form='large', num_cells=18, num_conv_filters=168, stem_multiplier=3., classes=1001, sizes=[(331, 331)], big=True),
)


def config(case):
    form = dict(cifar='cifar', mobile='mobile_imagenet', large='large_imagenet', strided='large_imagenet')[case['form']]
    hparams = getattr(nasnet, form + '_config')()
    for name in ['num_cells', 'num_conv_filters', 'stem_multiplier']:
        if name in case:
            hparams.set_hparam(name, case[name])
    hparams.set_hparam('use_aux_head', int(case.get('aux', False)))
    hparams.set_hparam('drop_path_keep_prob', 1.)
    hparams.set_hparam('dense_dropout_keep_prob', 1.)
    return hparams


def arg_scope(case, **settings):
    form = 'large' if case['form'] == 'strided' else case['form']
    return slim.arg_scope(getattr(nasnet, f'nasnet_{form}_arg_scope')(**settings))


def build(case, images, mode, **settings):
    """Slim's network in `mode`: 'infer', 'train', or 'frozen', the training graph in inference mode.

    Returns the logits and a dict of the cells' outputs, `pool` and, where there is one, `aux_logits`.
    """
    hparams, outputs = config(case), {}
    call = nasnet_utils.NasNetABaseCell.__call__

    def recorded(self, net, scope=None, **kwargs):
        outputs[scope] = call(self, net, scope=scope, **kwargs)
        return outputs[scope]

    nasnet_utils.NasNetABaseCell.__call__ = recorded
    try:
        with arg_scope(case, **settings):
            if case['form'] != 'strided' and mode != 'frozen':
                make = getattr(nasnet, 'build_nasnet_' + case['form'])
                logits, ends = make(images, case['classes'], is_training=mode == 'train', config=hparams)
            else:
                logits, ends = build_parts(case, hparams, images, mode)
    finally:
        nasnet_utils.NasNetABaseCell.__call__ = call
    outputs['pool'] = ends['global_pool']
    if 'AuxLogits' in ends:
        outputs['aux_logits'] = ends['AuxLogits']
    return logits, outputs


def layer_scope(mode):
    """Slim's scope for the layers of a network in `mode`, inside the form's own."""
    layers = [slim.avg_pool2d, slim.max_pool2d, slim.conv2d, slim.batch_norm, slim.separable_conv2d,
              nasnet_utils.factorized_reduction, nasnet_utils.global_avg_pool,
              nasnet_utils.get_channel_index, nasnet_utils.get_channel_dim]
    with slim.arg_scope([slim.dropout, nasnet_utils.drop_path, slim.batch_norm], is_training=mode == 'train'), \
            slim.arg_scope(layers, data_format='NHWC') as scope:
        return scope


def build_parts(case, hparams, images, mode):
    """What build_nasnet_* does, with batch norm's mode apart from the graph's, and the strided form."""
    cells = hparams.num_cells + (2 if case['form'] == 'cifar' else 4)
    normal, reduction = (
        cell(hparams.num_conv_filters, 1., cells, hparams.total_training_steps)
        for cell in [nasnet_utils.NasNetANormalCell, nasnet_utils.NasNetAReductionCell])
    with slim.arg_scope(layer_scope(mode)):
        if case['form'] == 'strided':
            return strided(normal, hparams, images, case['classes'])
        return nasnet._build_nasnet_base(
            images, normal, reduction, case['classes'], hparams, is_training=True,
            stem_type='cifar' if case['form'] == 'cifar' else 'imagenet')


def strided(normal, hparams, images, classes):
    """The form without reduction cells: slim's stem function and cell class, called with normal cells at stride 2.

    Slim has the pieces and a comment about "stride normal cells" but no loop that uses them; each cell
    reads the two outputs before it.
    """
    net, outputs = nasnet._imagenet_stem(images, hparams, normal)
    first = nasnet_utils.calc_reduction_layers(hparams.num_cells, hparams.num_reduction_layers)
    scaling = 1.
    for number in range(hparams.num_cells):
        scaling *= hparams.filter_scaling_rate if number in first else 1.
        net = normal(net, scope=f'cell_{number}', filter_scaling=scaling, stride=2 if number in first else 1,
                     prev_layer=outputs[-2], cell_num=number + 2)
        outputs.append(net)
    with tf.variable_scope('final_layer'):
        pool = nasnet_utils.global_avg_pool(tf.nn.relu(net))
        return slim.fully_connected(pool, classes), dict(global_pool=pool)


def put(session, values):
    """Gives variables their values, in one run: a run for each takes minutes."""
    session.run([v.initializer for v in values], {v.initializer.inputs[1]: value for v, value in values.items()})


def initial(variables, rng):
    """Random weights that keep the size of what they multiply."""
    def value(name, shape):
        leaf = name.split('/')[-1]
        if leaf == 'gamma':
            return rng.uniform(.6, 1.4, shape)
        if leaf in ['beta', 'biases']:
            return rng.normal(0, .2, shape)
        if leaf == 'depthwise_weights':
            return rng.normal(0, 1, shape) * np.sqrt(2 / (shape[0] * shape[1]))
        if leaf in ['pointwise_weights', 'weights']:
            return rng.normal(0, 1, shape) * np.sqrt(2 / np.prod(shape[:-1]))
        return np.full(shape, leaf == 'moving_variance')
    return {v.op.name: value(v.op.name, v.shape.as_list()).astype(v.dtype.base_dtype.as_numpy_dtype) for v in variables}


def picture(rng, batch, height, width):
    """Gradients, a bright and a dark patch, and noise, within [-1, 1]: no two rows, columns or channels alike."""
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    image = np.stack([x, y, 1 - x * y], 2)[None] * rng.uniform(.5, 1., [batch, 1, 1, 3])
    image[:, height // 5:height // 2, width // 4:width // 2] += .4
    image[:, height // 2:, 2 * width // 3:] -= .4
    return np.clip(image * 2 - 1 + rng.normal(0, .15, image.shape), -1, 1).astype(np.float32)


def weights(case, rng):
    """All values of the network, moving statistics fitted to a batch and then moved."""
    with tf.Graph().as_default(), tf.Session() as session:
        height, width = case['sizes'][0]
        batch = 4 if case.get('big') else 16
        images = tf.placeholder(tf.float32, [batch, height, width, 3])
        logits, _ = build(case, images, 'train', batch_norm_decay=0.)  # the moving statistics become the batch's
        values = initial(tf.global_variables(), rng)
        put(session, {v: values[v.op.name] for v in tf.global_variables()})
        feed = {images: picture(rng, batch, height, width)}
        session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS), feed)
        values = session.run({v.op.name: v for v in tf.global_variables()})
        values['final_layer/FC/weights'] *= np.float32(1.5) / session.run(logits, feed).std()
    for name in sorted(values):
        if name.endswith('moving_mean'):
            variance = name.replace('moving_mean', 'moving_variance')
            shape = values[name].shape
            values[name] += (np.sqrt(values[variance] + 1e-3) * rng.normal(0, .15, shape)).astype(np.float32)
            values[variance] = (values[variance] * rng.uniform(.75, 1.5, shape) + 1e-2).astype(np.float32)
    return values


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


def read_safetensors(path):
    with open(path, 'rb') as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), 'little')))
        data = file.read()
    return {name: np.frombuffer(data[e['data_offsets'][0]:e['data_offsets'][1]], '<f4').reshape(e['shape'])
            for name, e in head.items() if name != '__metadata__'}


def placed(shards):
    """Spreads variables over as many CPU devices, each of which becomes a shard of the checkpoint."""
    names = []

    def device(op):
        if shards == 1 or op.type not in ['VarHandleOp', 'VariableV2']:
            return '/cpu:0'
        names.append(op.name)
        return f'/cpu:{len(names) % shards}'
    return tf.device(device)


def sessions(shards):
    return tf.Session(config=tf.ConfigProto(device_count={'CPU': shards}))


def golden_path(folder, case, size):
    return os.path.join(folder, 'golden.safetensors' if size == case['sizes'][0] else 'golden_%dx%d.safetensors' % size)


def save(case, folder, rng):
    """Writes the checkpoint; with `slots`, after three steps of training that leave averages and slots behind."""
    values, shards = weights(case, rng), case.get('shards', 1)
    with tf.Graph().as_default(), placed(shards), sessions(shards) as session:
        step = tf.train.get_or_create_global_step()
        height, width = case['sizes'][0]
        images = tf.placeholder(tf.float32, [8, height, width, 3])
        logits, _ = build(case, images, 'frozen' if case.get('aux') else 'infer')
        operations = []
        if case.get('slots'):
            # RMSProp, with its two slots a variable, on a part of the network, to keep the file small; what
            # has no slots of its own is trained by plain descent. Every trainable variable is averaged.
            slotted = [v for v in tf.trainable_variables() if v.op.name.startswith(('conv0', 'cell_stem_0', 'final_layer'))]
            others = [v for v in tf.trainable_variables() if not v.op.name.startswith(('conv0', 'cell_stem_0', 'final_layer'))]
            loss = tf.losses.sparse_softmax_cross_entropy(np.arange(8) % case['classes'], logits)
            updates = [tf.train.RMSPropOptimizer(.05, .9, .9, 1.).minimize(loss, step, slotted),
                       tf.train.GradientDescentOptimizer(.02).minimize(loss, var_list=others)]
            average = tf.train.ExponentialMovingAverage(.7)
            with tf.control_dependencies(updates):
                operations = [average.apply(tf.trainable_variables())]
        session.run(tf.global_variables_initializer())
        put(session, {v: values[v.op.name] for v in tf.global_variables() if v.op.name in values} | {step: 250_000})
        if operations:  # the averages begin at the random initial values; let them begin at ours
            put(session, {average.average(v): values[v.op.name] for v in tf.trainable_variables()})
            for _ in range(3):
                session.run(operations, {images: picture(rng, 8, height, width)})
        saver = tf.train.Saver(sharded=shards > 1)
        saver.save(session, os.path.join(folder, 'model.ckpt'), write_meta_graph=False, write_state=False)
        return [v.op.name for v in tf.global_variables()]


def outputs(case, folder, image):
    """What slim computes from the checkpoint in `folder`, each run in a graph and session of its own."""
    def run(mode, averaged=False):
        with tf.Graph().as_default(), tf.Session() as session:
            logits, ends = build(case, tf.constant(image), mode)
            restore = tf.global_variables()
            if averaged:
                restore = tf.train.ExponentialMovingAverage(.7).variables_to_restore(tf.trainable_variables())
                restore.update({v.op.name: v for v in tf.global_variables() if 'moving_' in v.op.name})
            tf.train.Saver(restore).restore(session, os.path.join(folder, 'model.ckpt'))
            return session.run(dict(ends, logits=logits))

    out = run('infer', averaged=case.get('slots', False))
    if case.get('slots'):
        out['logits_raw'] = run('infer')['logits']
        assert np.abs(out['logits_raw'] - out['logits']).max() > .1, 'averages are too near the raw values'
    if case.get('aux'):
        frozen = run('frozen')
        assert np.abs(frozen['logits'] - out['logits']).max() < 1e-5, 'frozen and inference graphs differ'
        out['aux_logits'] = frozen['aux_logits']
    return out


def make(name, case, folder, seed):
    os.makedirs(folder, exist_ok=True)
    for file in os.listdir(folder):
        os.remove(os.path.join(folder, file))
    rng = np.random.default_rng(seed)
    names = save(case, folder, rng)
    about = dict(
        source='TF-slim nets/nasnet, random weights', case=name, seed=seed, settings=json.dumps(case),
        **{package: version(package) for package in ['tensorflow-cpu', 'tf-slim', 'numpy']})
    for size in case['sizes']:
        image = picture(rng, 1, *size)
        tensors = outputs(case, folder, image)
        for key, value in tensors.items():
            assert np.isfinite(value).all(), key
            print(f'  {key:20} {str(list(value.shape)):20} mean {value.mean():7.3f}  deviation {value.std():6.3f}')
        if case['classes'] > 100:  # full size: only what decides
            tensors = {k: v for k, v in tensors.items() if k in ['logits', 'aux_logits', 'pool']}
        write_safetensors(golden_path(folder, case, size), dict(tensors, image=image), about)
    total = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f'{name}: {len(names)} variables, {total:,} bytes:', {f: os.path.getsize(os.path.join(folder, f)) for f in sorted(os.listdir(folder))})


def check(name, case, folder):
    for size in case['sizes']:
        golden = read_safetensors(golden_path(folder, case, size))
        image = golden.pop('image')
        now = outputs(case, folder, image)
        worst = max(np.abs(now[key] - value).max() for key, value in golden.items())
        print(f'{name} {size}: {len(golden)} outputs, largest difference {worst:.2g}')
        assert worst < 1e-4, name


# The auxiliary head alone; `map` is the shape of what it reads, for a square image with sides of `image`.
# 9 pixels leave the pool a rest, 8 and 14 do not.
AUX_CASES = [
    dict(form='cifar', num_cells=6, num_conv_filters=1, classes=10, image=16, map=[2, 8, 8, 12]),
    dict(form='cifar', num_cells=6, num_conv_filters=1, classes=10, image=17, map=[1, 9, 9, 12]),
    dict(form='mobile', num_cells=3, num_conv_filters=4, stem_multiplier=1., classes=13, image=224, map=[1, 14, 14, 48]),
]


def formula(number, shape, offset, scale):
    h = (np.arange(np.prod(shape), dtype=np.uint64) + (number << 22)) * 2654435761 % 2**32
    h ^= h >> 15
    h = h * 2246822519 % 2**32
    h ^= h >> 13
    return (offset + scale * ((h >> 8) / 2**23 - 1)).astype(np.float32).reshape(shape)


def aux_range(name, shape):
    """Offset and scale. Variances are small, so that epsilon counts, and no mean is negative: swapped, they give numbers."""
    leaf = name.split('/')[-1]
    fixed = dict(gamma=(1., .4), beta=(0., .5), biases=(0., .5), moving_mean=(.15, .1), moving_variance=(.1, .08))
    return fixed[leaf] if leaf in fixed else (0., round(float(np.sqrt(6 / np.prod(shape[:-1]))), 4))


def aux_case(case):
    """What `aux.json` says of a case: 0 is the map's number, variables follow in the order of their names."""
    def tensor(number, name, shape, offset, scale):
        return dict(name=name, number=number, shape=shape, offset=offset, scale=scale)

    with tf.Graph().as_default(), tf.Session() as session:
        read = tensor(0, 'map', case['map'], 0., 1.)
        chosen = f"cell_{2 * case['num_cells'] // 3 - 1}"
        net = tf.constant(formula(*[read[k] for k in ['number', 'shape', 'offset', 'scale']]))
        other = tf.fill([case['map'][0], 2, 2, 1], np.float32('nan'))

        def cell(_, scope, **kwargs):
            return net if scope == chosen else other

        images = tf.zeros([case['map'][0], case['image'], case['image'], 3])
        with arg_scope(case), slim.arg_scope(layer_scope('frozen')):
            _, ends = nasnet._build_nasnet_base(
                images, cell, cell, case['classes'], config(dict(case, aux=True)), is_training=True,
                stem_type='cifar' if case['form'] == 'cifar' else 'imagenet')
        head = '/aux_logits/'
        variables = sorted((v for v in tf.global_variables() if head in v.op.name), key=lambda v: v.op.name)
        tensors = []
        for number, variable in enumerate(variables, 1):
            shape = variable.shape.as_list()
            name = variable.op.name.split(head)[1]
            tensors.append(tensor(number, name, shape, *aux_range(name, shape)))
        put(session, {v: formula(*[t[k] for k in ['number', 'shape', 'offset', 'scale']]) for v, t in zip(variables, tensors)})
        # A ReLU that changes little could be left out unseen.
        relus = [op.inputs[0] for op in tf.get_default_graph().get_operations() if op.type == 'Relu' and head in op.name]
        for value in session.run([net] + relus):
            print(f'  ReLU of {list(value.shape)}: {np.mean(value < 0):.0%} negative')
            assert .2 < np.mean(value < 0) < .8
        assert len(relus) == 2
        logits = session.run(ends['AuxLogits'])
    assert np.isfinite(logits).all()
    print(f"aux {case['map']}: logits of deviation {logits.std():.3f}")
    return dict(case, map=read, variables=tensors, logits=[[float(f'{x:.9g}') for x in row] for row in logits])


def aux(path, check):
    about = dict(source='TF-slim nets/nasnet, weights and map by the formula in tools/golden_tf_slim.py',
                 **{package: version(package) for package in ['tensorflow-cpu', 'tf-slim', 'numpy']})
    cases = [aux_case(case) for case in AUX_CASES]
    if not check:
        rows = ',\n'.join(json.dumps(case) for case in cases)
        with open(path, 'w') as file:
            file.write(f'{{"about": {json.dumps(about)},\n"cases": [\n{rows}\n]}}\n')
        return
    with open(path) as file:
        golden = json.load(file)['cases']
    for now, kept in zip(cases, golden, strict=True):
        worst = np.abs(np.subtract(now.pop('logits'), kept.pop('logits'))).max()
        print(f'aux: largest difference {worst:.2g}')
        assert worst < 1e-4 and now == kept


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('slim', help='folder that holds nets/nasnet')
    parser.add_argument('cases', nargs='*', help=', '.join([*CASES, 'aux']))
    parser.add_argument('--out', default=os.path.join(os.path.dirname(__file__), '..', 'tests', 'golden', 'tf_slim'))
    parser.add_argument('--seed', type=int, default=3)
    parser.add_argument('--check', action='store_true')
    args = parser.parse_args()
    stand_in()
    sys.path.insert(0, args.slim)
    import tf_slim as slim
    from nets.nasnet import nasnet, nasnet_utils
    for name in args.cases or [n for n, c in CASES.items() if not c.get('big')] + ['aux']:
        if name == 'aux':
            aux(os.path.join(args.out, 'aux.json'), args.check)
            continue
        folder = os.path.join(args.out, name)
        check(name, CASES[name], folder) if args.check else make(name, CASES[name], folder, args.seed)
