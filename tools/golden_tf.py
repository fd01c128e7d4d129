"""Writes tests/golden/tf: small files by TensorFlow itself, and what TensorFlow says they hold.

    python3.11 -m venv venv && venv/bin/pip install tensorflow-cpu==2.15.1
    venv/bin/python tools/golden_tf.py

parts.*         a checkpoint in three data files, with every element type, a scalar, an empty variable and a text
partitioned.*   a checkpoint of one variable stored in two parts
first.ckpt      a checkpoint of the first form
graph.pb        a graph of constants in every way that TensorFlow accepts
saved_model.pb  a SavedModel
expected.json   for parts and graph: name -> [dtype, shape, sha256 of the little-endian bytes]
"""
import hashlib, json, os, shutil
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2
from google.protobuf import text_format

OUT = os.path.join(os.path.dirname(__file__), '..', 'tests', 'golden', 'tf')
shutil.rmtree(OUT, ignore_errors=True)
os.makedirs(OUT)
path = lambda name: os.path.join(OUT, name)
random = np.random.default_rng(0)


def said(value):
    value = np.asarray(value)
    kind = 'string' if value.dtype.kind in 'OS' else value.dtype.name
    return [kind, list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]


def values():
    yield 'cell_0/conv/weights', random.standard_normal((3, 3, 2, 5)).astype('f4')
    yield 'cell_0/conv/biases', random.standard_normal(5).astype('f4')
    yield 'cell_0/conv/weights/Momentum', np.zeros((3, 3, 2, 5), 'f4')
    yield 'double', random.standard_normal((2, 3)).astype('f8')
    yield 'half', random.standard_normal((2, 3)).astype('f2')
    yield 'brain', random.standard_normal((4,)).astype(tf.bfloat16.as_numpy_dtype)
    for kind in ['i1', 'i2', 'i4', 'i8', 'u1']:
        low = 0 if kind == 'u1' else -100
        yield 'integer/' + kind, random.integers(low, 100, (2, 2)).astype(kind)
    yield 'bool', np.array([True, False, True])
    yield 'global_step', np.array(1234567890123, 'i8')
    yield 'empty', np.zeros((0, 4), 'f4')
    yield 'unsigned', np.array([1, 2], 'u4')
    yield 'complex', np.array([1 + 2j], 'c8')
    yield 'text', np.array([b'a text', b''], object)


def checkpoint():
    everything = dict(values())
    names = sorted(everything)
    parts = []
    for i in range(3):
        part, own = path('part%d' % i), names[i::3]
        tf.raw_ops.SaveV2(prefix=part, tensor_names=own, shape_and_slices=[''] * len(own),
                          tensors=[tf.constant(everything[n]) for n in own])
        parts.append(part)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=path('parts'), delete_old_dirs=False)
    reader = tf.train.load_checkpoint(path('parts'))
    return {name: said(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}


def other_checkpoints():
    whole = random.standard_normal((4, 2)).astype('f4')
    tf.raw_ops.SaveV2(prefix=path('partitioned'), tensor_names=['table', 'table', 'whole'],
                      shape_and_slices=['4 2 0,3:-', '4 2 3,1:-', ''],
                      tensors=[tf.constant(whole[:3]), tf.constant(whole[3:]), tf.constant(whole)])
    tf.raw_ops.Save(filename=path('first.ckpt'), tensor_names=['v'], data=[tf.constant(whole)])


TYPED = '''
  node { name: "fill" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { dim { size: 2 } dim { size: 3 } } float_val: 1.5 float_val: -2.5 } } } }
  node { name: "one" op: "Const" attr { key: "value" value { tensor { dtype: DT_DOUBLE tensor_shape { dim { size: 4 } } double_val: 0.1 } } } }
  node { name: "none" op: "Const" attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { dim { size: 3 } } } } } }
  node { name: "scalar" op: "Const" attr { key: "value" value { tensor { dtype: DT_INT64 tensor_shape { } int64_val: -7 } } } }
  node { name: "bytes" op: "Const" attr { key: "value" value { tensor { dtype: DT_UINT8 tensor_shape { dim { size: 3 } } int_val: 1 int_val: 255 } } } }
  node { name: "small" op: "Const" attr { key: "value" value { tensor { dtype: DT_INT8 tensor_shape { dim { size: 2 } } int_val: -128 int_val: 127 } } } }
  node { name: "short" op: "Const" attr { key: "value" value { tensor { dtype: DT_INT16 tensor_shape { dim { size: 2 } } int_val: -300 } } } }
  node { name: "half" op: "Const" attr { key: "value" value { tensor { dtype: DT_HALF tensor_shape { dim { size: 3 } } half_val: 15360 half_val: 49152 } } } }
  node { name: "brain" op: "Const" attr { key: "value" value { tensor { dtype: DT_BFLOAT16 tensor_shape { dim { size: 2 } } half_val: 16256 } } } }
  node { name: "flags" op: "Const" attr { key: "value" value { tensor { dtype: DT_BOOL tensor_shape { dim { size: 3 } } bool_val: false bool_val: true } } } }
  node { name: "text" op: "Const" attr { key: "value" value { tensor { dtype: DT_STRING tensor_shape { } string_val: "hello" } } } }
  node { name: "empty" op: "Const" attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { dim { size: 0 } dim { size: 2 } } } } } }
  node { name: "input" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
  node { name: "sum" op: "Add" input: "fill" input: "input" attr { key: "T" value { type: DT_FLOAT } } }
'''


def graph():
    definition = text_format.Parse(TYPED, graph_pb2.GraphDef())
    for name, value in values():
        node = definition.node.add(name='content/' + name, op='Const')
        node.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(value))
    for node in definition.node:
        if node.op == 'Const':
            node.attr['dtype'].type = node.attr['value'].tensor.dtype
    with open(path('graph.pb'), 'wb') as file:
        file.write(definition.SerializeToString(deterministic=True))
    # What the runtime makes of each constant, not what a Python helper does.
    result = {}
    with tf.Graph().as_default() as whole, tf.compat.v1.Session(graph=whole) as session:
        tf.import_graph_def(definition, name='')
        for node in definition.node:
            if node.op == 'Const':
                result[node.name] = said(session.run(node.name + ':0'))
    return result


expected = {'parts': checkpoint(), 'graph': graph()}
other_checkpoints()
model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
model.meta_graphs.add().graph_def.node.add(name='x', op='NoOp')
with open(path('saved_model.pb'), 'wb') as file:
    file.write(model.SerializeToString(deterministic=True))
expected['tensorflow'] = tf.__version__
with open(path('expected.json'), 'w') as file:
    # A line a tensor.
    file.write(json.dumps(expected, sort_keys=True).replace('"], "', '"],\n"').replace('}, "', '},\n"') + '\n')
