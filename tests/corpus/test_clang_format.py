"""clang-format (MSVC, C runtime in DLLs): formats a large, badly laid out C++ file."""

from __future__ import annotations

from pathlib import Path

from rig import corpus, tracing

_PIECE = """
namespace n{i}{{template<typename T,int N={i}>class Box{i}:public Base<T>,private Other{{public:
explicit Box{i}(const T&value,std::vector<std::pair<int,T>>more={{}}):Base<T>(value),count_(N),
more_(std::move(more)){{if(count_>{i}&&!more_.empty()||value==T()){{for(auto&[key,item]:more_)
item+=static_cast<T>(key*{i}+count_%7-(key<<2));}} else switch(count_){{
case 1:count_++;break;case 2:{{auto f=[this,&value](int a,int b)->int{{return a*b+count_;}};
count_=f({i},2);break;}}default:
throw std::runtime_error("a long message that will have to be broken somewhere, {i}");}}}}
virtual~Box{i}()noexcept=default; T operator+(const Box{i}&other)const{{return value()+other.value();}}
#define MACRO{i}(x,y) do{{ if((x)>(y)){{swap(x,y);}} }}while(0)
private:int count_; // comment {i}
std::vector<std::pair<int,T>>more_;   /* another   comment */
enum class Kind:unsigned char{{A=1,B,C=1<<{k},D}};}};}}
"""


def prepare(folder: Path) -> None:
    pieces = (_PIECE.format(i=i, k=i % 8) for i in range(30))
    (folder / "source.cpp").write_text("#include<vector>\n#include <stdexcept>\n" + "".join(pieces))


def test_formats_a_file_the_same_three_times_traced(tmp_path: Path) -> None:
    arguments = ["-style=LLVM", "source.cpp"]
    job = tracing.Job(corpus.program("clang-format"), arguments, tmp_path / "work", prepare)
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "clang-format.calltrace")
    assert plain.exit_code == 0
    assert b"\n  virtual ~Box29() noexcept = default;" in plain.stdout
