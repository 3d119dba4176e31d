"""Korean verbs and word lists for `scripts.korean_text`."""

from __future__ import annotations

from dataclasses import dataclass

from quickstart.korean import Noun

_FIRST = ord("가")
_N, _L, _B, _SS = 4, 8, 17, 20


def _with_final(word: str, final: int) -> str:
    """Return `word` with the final consonant of its last syllable set; `final` as in Unicode, 0 for none."""
    code = ord(word[-1]) - _FIRST
    return word[:-1] + chr(_FIRST + code - code % 28 + final)


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb or adjective; a template picks its form: ``{eat:고}``."""

    stem: str
    """What stands before 다."""
    infinitive: str
    """The form in 아 or 어, which carries every irregularity: 도와, 걸어, 해."""

    def __format__(self, ending: str) -> str:
        final = (ord(self.stem[-1]) - _FIRST) % 28
        past = _with_final(self.infinitive, _SS)
        if ending == "ㅂ니다":
            return f"{_with_final(self.stem, _B)}니다" if final in (0, _L) else f"{self.stem}습니다"
        if ending == "는":
            return f"{_with_final(self.stem, 0) if final == _L else self.stem}는"
        if ending == "ㄴ":
            return self._before_a_noun(final)
        if ending == "ㄴ다":
            return f"{_with_final(self.stem, _N)}다" if final in (0, _L) else f"{self.stem}는다"
        return {
            "다": f"{self.stem}다",
            "고": f"{self.stem}고",
            "지만": f"{self.stem}지만",
            "지": f"{self.stem}지",
            "게": f"{self.stem}게",
            "겠습니다": f"{self.stem}겠습니다",
            "아집니다": f"{self.infinitive}집니다",
            "네요": f"{_with_final(self.stem, 0) if final == _L else self.stem}네요",
            "아": self.infinitive,
            "아서": f"{self.infinitive}서",
            "아요": f"{self.infinitive}요",
            "았다": f"{past}다",
            "았어요": f"{past}어요",
            "았습니다": f"{past}습니다",
        }[ending]

    def _before_a_noun(self, final: int) -> str:
        """Return the form of an adjective before its noun: 큰, 넓은, 아름다운, 맛있는."""
        if self.stem.endswith(("있", "없")):
            return f"{self.stem}는"
        if final == _B and self.infinitive[-1] in "와워":
            return f"{_with_final(self.stem, 0)}운"
        return _with_final(self.stem, _N) if final in (0, _L) else f"{self.stem}은"


def nouns(line: str) -> tuple[Noun, ...]:
    """Cut a line at its blanks; an underscore stands for a blank inside a word."""
    return tuple(Noun(word.replace("_", " ")) for word in line.split())


def verbs(line: str) -> tuple[Verb, ...]:
    """Cut a line into verbs, each written as ``stem/infinitive``; an underscore stands for a blank."""
    return tuple(Verb(*pair.replace("_", " ").split("/")) for pair in line.split())


FAMILY_NAMES = nouns("김 이 박 최 정 강 조 윤 장 임 한 오 서 신 권 황 안 송 류 홍")
GIVEN_NAMES = nouns(
    "민수 지영 서준 하은 도윤 수아 지호 예린 현우 소라 은지 태민 유진 승호 다은 준영 미나 성호 보람 나래 가온 "
    "아름 동현 세희 재석 영희 철수 순이 경민 혜원"
)
RELATIONS = nouns("친구 동생 언니 형 누나 오빠 어머니 아버지 할머니 할아버지 이모 삼촌 선생님 이웃 동료 아이")
JOBS = nouns(
    "교사 의사 간호사 요리사 농부 어부 화가 작가 기자 소방관 경찰관 변호사 건축가 연구원 번역가 사진가 목수 "
    "정원사 운전사 우체부 약사 배우 가수 회사원 공무원 사서 도예가 제빵사 통역사 기술자"
)
CITIES = nouns(
    "서울 부산 대구 인천 광주 대전 울산 수원 춘천 강릉 전주 경주 제주 여수 목포 군산 안동 포항 통영 속초 청주 "
    "천안 진주 순천"
)
PLACES = nouns(
    "공원 시장 학교 도서관 병원 역 우체국 식당 카페 박물관 극장 서점 은행 운동장 놀이터 강가 바닷가 숲 산 들판 "
    "광장 골목 마을 회관 정류장 미술관 수영장 빵집 꽃집 항구 다리"
)
FOODS = nouns(
    "밥 국수 김치 떡 빵 사과 배 포도 수박 감자 고구마 만두 김밥 비빔밥 된장찌개 두부 생선 달걀 우유 녹차 커피 "
    "주스 죽 불고기 냉면 떡볶이 호박 옥수수 딸기 귤 감 콩나물국 미역국 칼국수 잡채 전 식혜 수정과 유자차 과자"
)
THINGS = nouns(
    "책 공책 연필 가방 모자 우산 시계 의자 책상 침대 창문 전화기 자전거 자동차 기차 배 컴퓨터 사진 그림 편지 "
    "열쇠 지갑 안경 신발 옷 장갑 목도리 컵 접시 냄비 칼 거울 등불 인형 공 악기 기타 피아노 지도 신문 상자 "
    "바구니 화분 꽃병"
)
ANIMALS = nouns(
    "개 고양이 소 말 돼지 닭 오리 토끼 여우 곰 사슴 다람쥐 참새 까치 제비 비둘기 나비 벌 개미 거북이 고래 물고기"
)
PLANTS = nouns(
    "소나무 은행나무 벚나무 단풍나무 장미 국화 개나리 진달래 민들레 해바라기 벼 보리 대나무 감나무 매화 난초"
)
COLORS = nouns("빨간색 파란색 노란색 하얀색 까만색 초록색 분홍색 보라색 갈색 회색")
MATERIALS = nouns("나무 쇠 유리 종이 천 가죽 흙 돌 은 플라스틱 솜 실")
SEASONS = nouns("봄 여름 가을 겨울")
MONTHS = nouns("일월 이월 삼월 사월 오월 유월 칠월 팔월 구월 시월 십일월 십이월")
DAYS = nouns("월요일 화요일 수요일 목요일 금요일 토요일 일요일")
TIMES = nouns("아침 점심 저녁 밤 새벽 오전 오후 주말 평일 휴일")
HOBBIES = nouns(
    "독서 등산 수영 낚시 요리 노래 그림 사진 여행 축구 농구 탁구 바둑 산책 달리기 춤 뜨개질 글쓰기 정원_가꾸기 "
    "영화_감상"
)
SUBJECTS = nouns("국어 수학 과학 역사 음악 미술 체육 지리 영어 한문 도덕 경제")
FEELINGS = verbs(
    "기쁘/기뻐 슬프/슬퍼 즐겁/즐거워 외롭/외로워 편안하/편안해 고맙/고마워 행복하/행복해 피곤하/피곤해 "
    "심심하/심심해 설레/설레어 놀랍/놀라워 뿌듯하/뿌듯해 아쉽/아쉬워 반갑/반가워"
)
QUALITIES = verbs(
    "크/커 작/작아 많/많아 적/적어 높/높아 낮/낮아 넓/넓어 좁/좁아 길/길어 짧/짧아 밝/밝아 어둡/어두워 "
    "조용하/조용해 깨끗하/깨끗해 아름답/아름다워 오래되/오래되어 새롭/새로워 따뜻하/따뜻해 시원하/시원해 "
    "유명하/유명해 편리하/편리해 가볍/가벼워 무겁/무거워 튼튼하/튼튼해 부드럽/부드러워 값싸/값싸 비싸/비싸"
)
TASTES = verbs("달/달아 짜/짜 맵/매워 시/셔 쓰/써 싱겁/싱거워 고소하/고소해 담백하/담백해 시원하/시원해 맛있/맛있어")
SKIES = verbs(
    "맑/맑아 흐리/흐려 춥/추워 덥/더워 따뜻하/따뜻해 시원하/시원해 쌀쌀하/쌀쌀해 건조하/건조해 습하/습해 포근하/포근해"
)
EATING = verbs("먹/먹어 만들/만들어 사/사 나누어_먹/나누어_먹어 준비하/준비해 맛보/맛보아 주문하/주문해 좋아하/좋아해")
HANDLING = verbs(
    "사/사 팔/팔아 찾/찾아 잃어버리/잃어버려 고치/고쳐 빌리/빌려 닦/닦아 만들/만들어 그리/그려 보/보아 받/받아 "
    "보내/보내 옮기/옮겨 열/열어 놓/놓아 들/들어 나르/날라 고르/골라 모으/모아 버리/버려 정리하/정리해"
)
MOVING = verbs("가/가 오/와 들르/들러 도착하/도착해 걸어가/걸어가 뛰어가/뛰어가 돌아오/돌아와 모이/모여 나가/나가")
RESTING = verbs(
    "쉬/쉬어 놀/놀아 일하/일해 공부하/공부해 기다리/기다려 걷/걸어 앉/앉아 이야기하/이야기해 노래하/노래해 "
    "웃/웃어 자/자"
)
