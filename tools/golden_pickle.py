#!/usr/bin/env python3
"""Writes tests/golden/pickle: checkpoints by torch.save, each with its tensors in a .safetensors beside it.

Run it where torch and safetensors are installed, after adding a case: python3 tools/golden_pickle.py
The metadata of each .safetensors records the version of torch, and the key under which the state dict
lies ("place", empty for the top value). The values are random, from a fixed seed; the older form names
storages by their addresses, so its files differ from run to run in that.
"""
import pathlib, pickle, shutil, zipfile
from collections import OrderedDict

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / 'tests/golden/pickle'


def module():
    """A convolution, a batch norm (with its int64 counter) and a layer: state_dict() has _metadata."""
    net = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(2, 3, 3), bn=torch.nn.BatchNorm2d(3), last=torch.nn.Linear(3, 2)))
    net.bn.running_mean.normal_()
    net.bn.num_batches_tracked.fill_(7)
    return net


def kinds():
    whole = lambda kind: torch.randint(-100, 100, (3, 4)).to(kind)
    return dict(half=torch.randn(5).half(), bfloat16=torch.randn(2, 3).bfloat16(), double=torch.randn(3).double(),
                int64=torch.randint(-2**62, 2**62, (2, 2)), int32=whole(torch.int32), int16=whole(torch.int16),
                int8=whole(torch.int8), uint8=torch.randint(0, 256, (7,), dtype=torch.uint8),
                bool=torch.tensor([[True, False, True]]), scalar=torch.tensor(2.5), empty=torch.zeros(0, 4),
                one_side=torch.randn(1, 1, 6))


def views():
    """Views that share one storage: transposed, from an offset, with steps, expanded, permuted; and tied."""
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5) + torch.rand(3, 4, 5)
    return dict(base=base, tied=base, row=base[1], transposed=base[2].t(), steps=base[:, ::2, 1::3], corner=base[2, 3, 4],
                permuted=base.permute(2, 0, 1), expanded=base[0, :, :1].expand(4, 6), tail=base.flatten()[55:],
                flat_expanded=base[1, 1, 2].expand(2, 2), none=base[:, 2:2])


def training():
    """As a training script saves it, from DataParallel, with what lies beside the weights."""
    net = module()
    optimizer = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    wrapped = OrderedDict(('module.' + k, v) for k, v in net.state_dict().items())
    return dict(epoch=3, arch='nasnet', lr=.25, args=dict(names=['a', 'b'], size=(224, 224), flag=None, on=True, big=2**200, low=-5),
                best_acc=numpy.float64(.5), kind=torch.float16, shape=torch.Size([2, 3]), loss=torch.tensor(.5),
                optimizer=optimizer.state_dict(), model_ema=OrderedDict(ema=torch.ones(1)), state_dict=wrapped), wrapped


class OldPickler(pickle._Pickler):
    """Writes OrderedDicts and strings as Python 2 did in 2017, and tensors by _rebuild_tensor."""
    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        data = text.encode()
        self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        self.memoize(text)

    dispatch[str] = save_str

    def __init__(self, file, protocol=2, **rest):
        super().__init__(file, protocol=2)

    def reducer_override(self, value):
        if isinstance(value, OrderedDict):
            return OrderedDict, ([[k, v] for k, v in value.items()],)
        if isinstance(value, torch.Tensor):
            return torch._utils._rebuild_tensor, (value.storage(), value.storage_offset(), tuple(value.size()), value.stride())
        return NotImplemented


class ViewPickler(OldPickler):
    """Names a part of each storage, from its element 2 on, as files of 2017 can; offsets count from there."""
    def save_pers(self, pid):
        super().save_pers(pid[:5] + (('part of ' + pid[2], 2, pid[4] - 2),))

    def reducer_override(self, value):
        if isinstance(value, torch.Tensor):
            call, (storage, offset, *rest) = super().reducer_override(value)
            return call, (storage, offset - 2, *rest)
        return super().reducer_override(value)


class old:
    """A pickle module of 2017, for torch.save."""
    Pickler = OldPickler

    @staticmethod
    def dump(value, file, protocol=2):
        OldPickler(file).dump(value)


class old_views(old):
    """The same, with parts of storages."""
    Pickler = ViewPickler


def repack(source, target, method, folder):
    """The same archive, as another program packs it."""
    with zipfile.ZipFile(source) as old_zip, zipfile.ZipFile(target, 'w', method) as new:
        for name in old_zip.namelist():
            info = zipfile.ZipInfo(folder + name[name.index('/'):], (2020, 1, 1, 0, 0, 0))
            new.writestr(info, old_zip.read(name), method)


def expect(name, tensors, place=''):
    strip = all(k.startswith('module.') for k in tensors)
    tensors = {k[7 * strip:]: v.detach().clone().contiguous() for k, v in tensors.items()}
    save_file(tensors, OUT / f'{name}.safetensors', dict(torch=torch.__version__, place=place))


def check():
    """torch itself reads every file as the .safetensors beside it says."""
    for path in sorted(OUT.glob('*.safetensors')):
        with safe_open(path, 'pt') as file:
            place = file.metadata()['place']
            expected = {k: file.get_tensor(k) for k in file.keys()}
        source = next(p for p in OUT.glob(path.stem + '.*') if p != path)
        found = torch.load(source, weights_only=False)
        found = found[place] if place else found
        found = {k.removeprefix('module.'): v for k, v in found.items()}
        assert found.keys() == expected.keys(), source
        for name, tensor in found.items():
            assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), (source, name)


def main():
    torch.manual_seed(17)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    net = module()
    parameters = dict(weight=torch.nn.Parameter(torch.randn(2, 3)), fixed=torch.nn.Parameter(torch.randn(2), requires_grad=False))
    checkpoint, inside = training()
    cases = dict(module=(net.state_dict(), net.state_dict(), ''), kinds=(kinds(),) * 2 + ('',), views=(views(),) * 2 + ('',),
                 parameters=(parameters, parameters, ''), training=(checkpoint, inside, 'state_dict'),
                 ema=(dict(state_dict_ema=parameters, epoch=1), parameters, 'state_dict_ema'))
    for name, (value, tensors, place) in cases.items():
        for form, new in (('zip', True), ('legacy', False)):
            torch.save(value, OUT / f'{name}_{form}.pth', _use_new_zipfile_serialization=new)
            expect(f'{name}_{form}', tensors, place)
    for protocol in (3, 4, 5):
        torch.save(cases['views'][0], OUT / f'protocol{protocol}_zip.bin', pickle_protocol=protocol)
        expect(f'protocol{protocol}_zip', cases['views'][1])
    torch.save(net.state_dict(), OUT / 'python2_legacy.bin', pickle_module=old, _use_new_zipfile_serialization=False)
    expect('python2_legacy', net.state_dict())
    base = torch.randn(12)
    parts = dict(square=base[2:6].view(2, 2), rest=base[4:], every_third=base[3::3])
    torch.save(parts, OUT / 'parts_legacy.pth', pickle_module=old_views, _use_new_zipfile_serialization=False)
    expect('parts_legacy', parts)
    for name, method in (('stored', zipfile.ZIP_STORED), ('deflated', zipfile.ZIP_DEFLATED)):
        repack(OUT / 'views_zip.pth', OUT / f'{name}_zip.bin', method, 'some other name')
        expect(f'{name}_zip', cases['views'][1])
    check()
    print(sum(p.stat().st_size for p in OUT.iterdir()), 'bytes')


main()
