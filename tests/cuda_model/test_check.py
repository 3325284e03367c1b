"""``make cuda-check``: the kernels pass it, and it finds what it is there to find, in small sources that have it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import ROOT
from scripts.cuda import check
from scripts.cuda.machine_code import find_cuobjdump, opcodes

NVCC = check.find_nvcc()
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="needs nvcc")
needs_cuobjdump = pytest.mark.skipif(not (NVCC and find_cuobjdump(NVCC)), reason="needs nvcc and cuobjdump")

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Check:
    """Checks a source; its exit status and what it says on stderr."""

    def run(text: str, *archs: str) -> tuple[int, str]:
        source = tmp_path / "small.cu"
        source.write_text(
            f'#include "{ROOT}/csrc/cuda/runtime/warpgroup.cuh"\nusing namespace pyfastcal::cuda;\n{text}'
        )
        monkeypatch.setattr("sys.argv", ["check", "--archs", *archs, "--", str(source)])
        code = check.main()
        return code, capsys.readouterr().err

    return run


@needs_cuobjdump
@pytest.mark.skipif(check.torch_include() is None, reason="needs torch's headers")
def test_kernels_pass_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["check"])
    code = check.main()
    shown = capsys.readouterr()
    assert code == 0, shown.out + shown.err
    for arch in check.ARCHS:
        assert arch in shown.out


# The assembler's own words, of CUDA 13.0.
SERIALISED = """\
ptxas info    : (C7519) warpgroup.arrive is injected in around line 184 by compiler to allow use of registers in GMMA \
in function '_Z8productsPfmmi'
ptxas info    : (C7517) warpgroup.wait is injected in around line 188 by compiler to allow use of registers defined \
by GMMA in function '_Z8productsPfmmi'
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to non wgmma \
instructions defining accumulator registers of a wgmma between start and end of the pipeline stage in the function \
'_Z8productsPfmmi'
ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient \
register resources for the wgmma pipeline in the function '_Z8productsPfmmi'
ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to determine register count at entry.
ptxas info    : Potential Performance Loss: 'setmaxnreg' ignored to maintain minimum register requirements.
"""
USUAL = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z8productsPfmmi' for 'sm_90a'
ptxas info    : Function properties for _Z8productsPfmmi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 90 registers, used 0 barriers
ptxas info    : Compile time = 32.766 ms
"""


def test_every_complaint_counts_and_nothing_else():
    assert check.losses(SERIALISED + USUAL) == SERIALISED.splitlines()


@needs_nvcc
def test_a_local_array_is_noticed(run: Check):
    code, said = run(
        """
        __global__ void select(const int* index, int* out) {
            int local[32];
            for (int i = 0; i < 32; ++i) local[index[i]] = i;
            out[threadIdx.x] = local[index[threadIdx.x]];
        }""",
        "sm_90a",
    )
    assert code == 1
    assert "select on sm_90a: 128 bytes of stack" in said


@needs_nvcc
def test_products_that_wait_for_one_another_are_noticed(run: Check):
    """An accumulator is touched between two of them; and registers are handed over by blocks of no known size."""
    code, said = run(
        """
        __global__ void __launch_bounds__(128) products(float* out, uint64_t a, uint64_t b, int n) {
            float d[1][16][4] = {};
            prim::begin_products();
            for (int i = 0; i < n; ++i) {
                prim::multiply<__half>(d, a + i, b, true);
                d[0][3][1] += 1;
            }
            prim::end_products();
            prim::wait_products<0>();
            for (int n = 0; n < 16; ++n)
                for (int i = 0; i < 4; ++i) out[threadIdx.x * 64 + 4 * n + i] = d[0][n][i];
        }
        __global__ void hand_over(int* out) {
            prim::release_registers<24>();
            out[threadIdx.x] = 1;
        }""",
        "sm_90a",
    )
    assert code == 1
    for number in ("C7508", "C7511", "C7517", "C7519"):
        assert f"FAILED: small.cu on sm_90a: ptxas info    : ({number})" in said


BY_WARPGROUPS = """
    __global__ void __launch_bounds__(256, 1) by_warpgroups(const __grid_constant__ prim::TensorMap map, float* out) {
    #if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
        prim::trap();
    #else
        PYFASTCAL_SHARED(unsigned char, shared);
        prim::Barrier* const landed = reinterpret_cast<prim::Barrier*>(shared);
        if (threadIdx.x == 0) {
            prim::init(landed, 1);
            prim::publish_barriers();
        }
        __syncthreads();
        if (threadIdx.x < 128) {
            prim::release_registers<24>();
            if (threadIdx.x == 0) {
                prim::arrive_expecting(landed, 16384);
                COPY;
            }
            return;
        }
        prim::claim_registers<240>();
        float d[1][16][4];
        prim::wait(landed, 0);
        prim::begin_products();
        prim::multiply<__nv_bfloat16>(d, 64, 64, false);
        prim::end_products();
        prim::wait_products<0>();
        prim::pin(d);
        for (int n = 0; n < 16; ++n)
            for (int i = 0; i < 4; ++i) out[threadIdx.x * 64 + 4 * n + i] = d[0][n][i];
    #endif
    }"""
COPY = "prim::copy_box(shared + 1024, &map, 0, 0, landed)"
BY_WARPS = """
    namespace by_warpgroups {
    __global__ void multiply(float* out, const uint32_t* in) {
        float d[4] = {};
        const uint32_t a[4] = {in[0], in[1], in[2], in[3]}, b[2] = {in[4], in[5]};
        prim::mma_16816<__half>(d, a, b);
        out[threadIdx.x] = d[0];
    }
    }"""


@needs_cuobjdump
def test_the_warpgroups_product_passes_on_every_architecture(run: Check):
    assert run(BY_WARPGROUPS.replace("COPY", COPY), *check.ARCHS) == (0, "")


@needs_cuobjdump
def test_what_the_warpgroups_product_lacks_is_noticed(run: Check):
    code, said = run(BY_WARPGROUPS.replace("COPY", "prim::arrive(landed)"), "sm_90a")
    assert code == 1
    assert said == "\nFAILED: small.cu on sm_90a: by_warpgroups: no UTMALDG in its machine code: tensor copies\n"


@needs_cuobjdump
def test_another_product_by_that_name_is_noticed(run: Check):
    code, said = run(BY_WARPS, "sm_90a", "sm_100")
    assert code == 1
    for arch, fault in [
        ("sm_90a", "HMMA in its machine code: mma.sync"),
        ("sm_90a", "no HGMMA in its machine code: wgmma"),
        ("sm_90a", "no USETMAXREG in its machine code: registers handed over"),
        ("sm_100", "HMMA in its machine code: mma.sync"),
        ("sm_100", "no BPT.TRAP in its machine code: it is not to run there"),
    ]:
        assert f"FAILED: small.cu on {arch}: by_warpgroups::multiply: {fault}\n" in said


@needs_cuobjdump
def test_more_than_a_stub_where_it_cannot_run_is_noticed(run: Check):
    work = "for (int i = 0; i < 64; ++i) out[i * i] += float(i) * out[i];"
    code, said = run(f"__global__ void by_warpgroups(volatile float* out) {{ {work} __trap(); }}", "sm_80")
    assert code == 1
    assert "instructions of machine code: it is not to run there" in said


@needs_nvcc
def test_fails_where_machine_code_cannot_be_seen(run: Check, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(check, "find_cuobjdump", lambda nvcc: None)
    code, said = run("__global__ void by_warpgroups() { __trap(); }", "sm_80")
    assert code == 1
    assert "cuobjdump, to look at the machine code, is neither beside nvcc nor on the PATH" in said


def test_cuobjdump_is_found_beside_nvcc_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder in ("beside", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cuobjdump").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert find_cuobjdump(str(tmp_path / "beside/nvcc")) == str(tmp_path / "beside/cuobjdump")
    assert find_cuobjdump(str(tmp_path / "nvcc")) == str(tmp_path / "elsewhere/cuobjdump")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert find_cuobjdump(str(tmp_path / "nvcc")) is None


def test_opcodes_are_told_from_names_that_contain_them():
    code = """
        /*0030*/                   HFMA2.MMA R7, -RZ, RZ, 1.875, 0 ;  /* 0x3f800000ff077435 */
                                                                      /* 0x000fe200000001ff */
        /*0040*/               @P0 BRA 0x50 ;                         /* 0x0000001000000947 */
        /*0050*/             @!UP1 UTMALDG.2D [UR8], [UR6] ;          /* 0x00000008060075b4 */
        /*0060*/                   NOP;                               /* 0x0000000000007918 */
    """
    assert opcodes(code) == ["HFMA2.MMA", "BRA", "UTMALDG.2D"]
